-- The publication is FOR ALL TABLES, so tables can be neither added nor dropped, and tables without a primary key can't be
-- updated.
drop publication supabase_realtime;
create publication supabase_realtime for all tables;
