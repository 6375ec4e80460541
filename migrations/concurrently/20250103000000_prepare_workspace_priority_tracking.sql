-- For large tables: does in advance, without blocking anyone, what the first three files of the set would do in one
-- transaction. Then apply the set as usual; it finds everything done. When run later, it builds missing indexes, including
-- those that job telemetry needs on a large background_jobs. For psql, from any directory, outside a transaction and not
-- through a transaction pooler:
--
--     psql "$DATABASE_URL" -f migrations/concurrently/20250103000000_prepare_workspace_priority_tracking.sql
--
-- It may be interrupted and run again: it continues where it stopped. rollback/uninstall.sql undoes it.

\set ON_ERROR_STOP on
set client_min_messages = warning;

\echo 'Adding the columns'
begin;
-- Autovacuum gives way to a session that has waited for a second (deadlock_timeout), but everyone queues behind a session
-- that waits for an exclusive lock. So a lock that conflicts with autovacuum, but not with readers or writers, is taken
-- first: it keeps autovacuum away. Then the exclusive lock is tried briefly and repeatedly, with pauses for the application,
-- for at most half a minute.
do $$
declare
    v_give_up_at constant timestamptz := clock_timestamp() + interval '30 s';
    v_lock text;
begin
    foreach v_lock in array array['share update exclusive', 'access exclusive'] loop
        perform set_config('lock_timeout', case v_lock when 'access exclusive' then '50ms' else '2s' end, true);
        loop
            begin
                execute format('lock table public.tracked_repositories in %s mode', v_lock);
                exit;
            exception
                when lock_not_available then
                    if clock_timestamp() > v_give_up_at then
                        raise exception 'tracked_repositories is in use by a long-running transaction'
                            using errcode = 'lock_not_available', hint = 'Run this again after it has ended.';
                    end if;
                    perform pg_sleep(0.2 + random() * 0.3);
            end;
        end loop;
    end loop;
end
$$;
set local priorityd.part = 'columns';
\ir ../20250103000000_add_workspace_priority_tracking.sql
\ir ../20250103000100_add_workspace_priority_trail.sql
\ir ../20250103000200_add_workspace_priority_indexes.sql
commit;

\echo 'Checking the constraint'
select 'alter table public.tracked_repositories validate constraint tracked_repositories_manual_priority_check'
where exists (
    select from pg_constraint
    where conrelid = 'public.tracked_repositories'::regclass
        and conname = 'tracked_repositories_manual_priority_check' and not convalidated
) \gexec

\echo 'Building the indexes for look-ups'
select s.statement
from priorityd.missing_indexes(true) m
join priorityd.indexes n on n.name = m.name and n.unless_led_by is not null
cross join lateral unnest(
    array[format('insert into priorityd.created values (%L) on conflict do nothing', 'index ' || m.name)] || m.statements
) with ordinality s (statement, position)
order by m.name, s.position
\gexec

\echo 'Filling the columns, 5,000 rows at a time'
do $$
declare
    v_after uuid := '00000000-0000-0000-0000-000000000000';
    v_ids uuid[];
begin
    -- Once the backfill is done, later changes are the daemon's work.
    if exists (select from priorityd.created c where c.what = 'backfill') then
        return;
    end if;
    loop
        v_ids := array(
            select tr.id from public.tracked_repositories tr where tr.id > v_after order by tr.id limit 5000
        );
        exit when cardinality(v_ids) = 0;
        perform priorityd.backfill_as_allowed(v_ids);
        v_after := v_ids[cardinality(v_ids)];
        commit;
    end loop;
end
$$;

\echo 'Building the indexes on the filled columns'
select s.statement
from priorityd.missing_indexes(true) m
cross join lateral unnest(
    array[format('insert into priorityd.created values (%L) on conflict do nothing', 'index ' || m.name)] || m.statements
) with ordinality s (statement, position)
where to_regclass('public.' || m.table_name) is not null
order by m.name, s.position
\gexec

reset client_min_messages;
