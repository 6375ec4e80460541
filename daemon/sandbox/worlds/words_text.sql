-- The priority is a text, and any text fits.
alter table public.tracked_repositories
    alter priority drop default,
    alter priority type text using priority::text,
    alter priority set default 'medium';
drop type public.repository_priority;
