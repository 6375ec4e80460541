-- The publication has memberships already, but by a row filter only half of them. Supabase Realtime reads with wal2json and
-- hands it the names of the published tables (realtime.list_changes), so it delivers all; the sandbox's stand-in reads with
-- pgoutput, which heeds the filter, and delivers that half. Sweeps find the rest.
alter publication supabase_realtime add table public.workspace_repositories
where (id > '80000000-0000-0000-0000-000000000000');
