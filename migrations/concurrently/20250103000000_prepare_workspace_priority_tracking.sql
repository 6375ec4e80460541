-- For large tables: does beforehand, and without making anybody wait, what
-- 20250103000000_add_workspace_priority_tracking.sql would do in one transaction. Afterwards apply that file and
-- all the others as usual; it finds everything there. For psql, from any directory, outside a transaction and
-- not through a transaction pooler:
--
--     psql "$DATABASE_URL" -f migrations/concurrently/20250103000000_prepare_workspace_priority_tracking.sql
--
-- Safe to run again, and to be interrupted: it goes on where it was. rollback/ undoes it with the migration.
-- The condition of idx_tracked_repos_priority_drift and what the backfill writes are those of that file.

\set ON_ERROR_STOP on
set client_min_messages = warning;

\echo 'Adding the columns'
begin;
-- Whoever waits for the strongest lock makes everybody wait behind it. So it is tried for a moment only, again and
-- again, and for half a minute at most; the moments between are the application's.
do $$
declare
    v_give_up_at constant timestamptz := clock_timestamp() + interval '30 s';
begin
    perform set_config('lock_timeout', '50ms', true);
    loop
        begin
            lock table public.tracked_repositories in access exclusive mode;
            exit;
        exception
            when lock_not_available then
                if clock_timestamp() > v_give_up_at then
                    raise exception 'tracked_repositories is in use by a transaction that does not end'
                        using errcode = 'lock_not_available', hint = 'Run this again when it has ended.';
                end if;
                perform pg_sleep(0.2 + random() * 0.3);
        end;
    end loop;
end
$$;
set local workspace_priority.part = 'columns';
\ir ../20250103000000_add_workspace_priority_tracking.sql
commit;

\echo 'Checking the constraint'
select 'alter table public.tracked_repositories validate constraint tracked_repositories_manual_priority_check'
where exists (
    select from pg_constraint
    where conrelid = 'public.tracked_repositories'::regclass
        and conname = 'tracked_repositories_manual_priority_check' and not convalidated
) \gexec

-- An index whose building was interrupted is there and of no use.
select format('drop index concurrently public.%I', c.relname)
from pg_index i join pg_class c on c.oid = i.indexrelid
where not i.indisvalid and c.relnamespace = 'public'::regnamespace and c.relname in (
    'idx_tracked_repos_workspace_priority', 'idx_tracked_repos_repository_id',
    'idx_tracked_repos_workspace_counts', 'idx_tracked_repos_priority_drift',
    'idx_workspace_repositories_repository_id'
) \gexec

\echo 'Building the indexes of look-ups'
-- What the application may have of its own is written down when it is made, so that the rollback knows it.
select
    format(
        $sql$update public.workspace_priority_migrations set created = created || 'index %1$s'::text
             where version = '20250103000000' and 'index %1$s' <> all (created)$sql$, n.name),
    format('create index concurrently %I on public.%I (repository_id)', n.name, n.relation)
from (
    values
        ('idx_tracked_repos_repository_id', 'tracked_repositories'),
        ('idx_workspace_repositories_repository_id', 'workspace_repositories')
) as n (name, relation)
where to_regclass('public.' || n.name) is null and not exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = ('public.' || n.relation)::regclass
        and a.attname = 'repository_id' and i.indpred is null and i.indisvalid
) \gexec

\echo 'Filling the columns, 5,000 rows at a time'
do $$
declare
    c_batch constant integer := 5000;
    v_first constant boolean := not exists (
        select from public.workspace_priority_migrations
        where version = '20250103000000' and 'backfill' = any (created)
    );
    v_after uuid := '00000000-0000-0000-0000-000000000000';
    v_ids uuid[];
begin
    -- Once the first backfill is done, what a change means is for the daemon and the migration to decide.
    if not v_first then
        return;
    end if;
    loop
        v_ids := array(
            select tr.id from public.tracked_repositories tr where tr.id > v_after order by tr.id limit c_batch
        );
        exit when cardinality(v_ids) = 0;

        with found as materialized (
            select tr.id, tr.priority, tr.is_workspace_repo, m.workspaces
            from public.tracked_repositories tr
            left join lateral (
                select count(distinct wr.workspace_id)::integer as workspaces
                from public.workspace_repositories wr
                where wr.repository_id = tr.repository_id
            ) m on true
            where tr.id = any (v_ids)
                and case when m.workspaces > 0
                    then tr.is_workspace_repo is not true
                        or tr.workspace_count is distinct from m.workspaces
                        or tr.priority is distinct from 'high'
                    else tr.is_workspace_repo is null
                        or tr.workspace_count is null
                        or (tr.priority = 'high' and tr.is_workspace_repo is not true and tr.manual_priority is null)
                end
            order by tr.id
            -- A row that the application holds is left to the migration.
            for no key update of tr skip locked
        ),
        written as (
            update public.tracked_repositories tr
            set is_workspace_repo = f.workspaces > 0 or coalesce(tr.is_workspace_repo, false),
                workspace_count = case when f.workspaces > 0 then f.workspaces else coalesce(tr.workspace_count, 0) end,
                priority = case when f.workspaces > 0 then 'high' else tr.priority end,
                manual_priority = case
                    when f.workspaces = 0 and tr.priority = 'high' and tr.is_workspace_repo is not true
                        then coalesce(tr.manual_priority, 'high')
                    else tr.manual_priority
                end
            from found f
            where tr.id = f.id
            returning tr.id, tr.repository_id
        )
        insert into public.repository_priority_changes (
            tracked_repository_id, repository_id, old_priority, new_priority,
            old_is_workspace_repo, is_workspace_repo, workspace_count, trigger, dispatched_at
        )
        select w.id, w.repository_id, f.priority::text, 'high', f.is_workspace_repo, true, f.workspaces, 'migration',
            clock_timestamp()
        from written w join found f using (id)
        where f.workspaces > 0 and (f.priority is distinct from 'high' or f.is_workspace_repo is not true)
        order by w.id;

        v_after := v_ids[cardinality(v_ids)];
        commit;
    end loop;
end
$$;

\echo 'Building the indexes of what was filled'
select
    $sql$update public.workspace_priority_migrations
         set created = created || 'index idx_tracked_repos_workspace_priority'::text
         where version = '20250103000000' and 'index idx_tracked_repos_workspace_priority' <> all (created)$sql$,
    'create index concurrently idx_tracked_repos_workspace_priority
         on public.tracked_repositories (is_workspace_repo, priority, tracking_enabled)'
where to_regclass('public.idx_tracked_repos_workspace_priority') is null \gexec

create index concurrently if not exists idx_tracked_repos_workspace_counts
on public.tracked_repositories (repository_id) include (workspace_count) where is_workspace_repo;

create index concurrently if not exists idx_tracked_repos_priority_drift
on public.tracked_repositories (id)
where (
    (is_workspace_repo and workspace_count > 0 and priority = 'high' and repository_id is not null)
    or (not is_workspace_repo and workspace_count = 0 and priority = coalesce(manual_priority, 'medium'))
) is not true;

reset client_min_messages;
