-- The publication has memberships already, but by a row filter only half of them. Supabase Realtime reads with wal2json,
-- which knows no row filters, and delivers all; the sandbox's stand-in reads with pgoutput and delivers that half.
alter publication supabase_realtime add table public.workspace_repositories
where (id > '80000000-0000-0000-0000-000000000000');
