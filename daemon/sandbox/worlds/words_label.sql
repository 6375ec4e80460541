-- The enum has a fourth label, above high, which is the application's own.
alter type public.repository_priority add value 'critical' before 'high';
