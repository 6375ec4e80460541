-- The priority is a text without a check: no type says which words there are.
alter table public.tracked_repositories
    alter priority drop default,
    alter priority type text using priority::text,
    alter priority set default 'medium';
drop type public.repository_priority;
