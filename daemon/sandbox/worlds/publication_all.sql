-- The publication is FOR ALL TABLES, so tables can be neither added nor taken out, and what has no primary key can't be
-- updated.
drop publication supabase_realtime;
create publication supabase_realtime for all tables;
