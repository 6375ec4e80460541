-- The priority is text without a check, so no type says which values are valid.
alter table public.tracked_repositories
    alter priority drop default,
    alter priority type text using priority::text,
    alter priority set default 'medium';
drop type public.repository_priority;
