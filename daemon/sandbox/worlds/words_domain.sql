-- The priority is a domain over varchar(10), so expressions on it have the base type.
create domain public.priority_word as varchar(10) check (value in ('high', 'medium', 'low'));
alter table public.tracked_repositories
    alter priority drop default,
    alter priority type public.priority_word using priority::text,
    alter priority set default 'medium';
drop type public.repository_priority;
