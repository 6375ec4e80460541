-- The publication already contains memberships, but a row filter leaves half of them out. Supabase Realtime uses wal2json,
-- to which it passes the names of the published tables (realtime.list_changes), so it delivers all. The sandbox's stand-in
-- uses pgoutput, which applies the filter, and delivers half. Sweeps find the rest.
alter publication supabase_realtime add table public.workspace_repositories
where (id > '80000000-0000-0000-0000-000000000000');
