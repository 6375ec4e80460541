-- The enum has a fourth label of the application's own, above high.
alter type public.repository_priority add value 'critical' before 'high';
