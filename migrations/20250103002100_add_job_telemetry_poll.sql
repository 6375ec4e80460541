-- Job telemetry, third part: how far the past is settled, the jobs that ended in it, and the poll.

do $functions$
begin
    if not priorityd.start_unit('20250103002100 functions', 1, '{20250103002000 functions}', '{poll_background_jobs}') then
        return;
    end if;

    -- ---------------------------------------------------------------------------------------------------------------
    -- What is settled
    -- ---------------------------------------------------------------------------------------------------------------

    -- The transactions of this database that are open now, by name. A transaction may write the time at which it began,
    -- but no earlier one. It began after `since`, when it was not open yet, and before `first_seen`, when it was.
    -- `writes`: it has a transaction id, because it has written or locked a row. Transactions in other databases can't write
    -- our table, and autovacuum, which has no user, writes no times. pg_stat_activity shows only to its own user when a
    -- transaction began; pg_locks hides nothing.
    -- A transaction holds a lock on its virtual id from its beginning until its rows become visible. A prepared one gives
    -- this lock up, so it may be any of those that were open before.
    create or replace function priorityd.look_at_transactions(p_before jsonb, p_looked_at timestamptz)
    returns jsonb language sql as $$
        select coalesce(
            jsonb_object_agg(
                o.name,
                jsonb_build_object('since', case when o.pid is null then e.earliest else p_looked_at end, 'first_seen', now())
                    || coalesce(p_before -> o.name, '{}')
                    || jsonb_build_object('pid', o.pid, 'writes', o.writes)
            ),
            '{}'
        )
        from (
            select l.virtualtransaction || ' of ' || l.pid as name, l.pid, bool_or(l.locktype = 'transactionid') as writes
            from pg_locks l
            join pg_stat_activity a on a.pid = l.pid
            where l.locktype in ('virtualxid', 'transactionid') and l.mode = 'ExclusiveLock' and l.granted
                and a.datname = current_database() and a.usesysid is not null and a.pid <> pg_backend_pid()
            group by 1, 2
            union all
            select 'prepared ' || p.transaction, null, true from pg_prepared_xacts p where p.database = current_database()
        ) o
        cross join (
            select least(min((b.value ->> 'since')::timestamptz), p_looked_at) as earliest from jsonb_each(p_before) b
        ) e
    $$;

    -- Those of them that are waited for, the longest open first. One that stays open too long may have been forgotten, and
    -- is no longer waited for.
    create or replace function priorityd.awaited_transactions(p_transactions jsonb)
    returns table (pid integer, since timestamptz, first_seen timestamptz, writes boolean)
    language sql stable as $$
        select t.pid, t.since, t.first_seen, t.writes
        from jsonb_each(p_transactions) e
        cross join lateral jsonb_to_record(e.value) t (
            pid integer, since timestamptz, first_seen timestamptz, writes boolean
        )
        where t.first_seen > now() - case when t.writes then interval '1 hour' else interval '5 minutes' end
        order by t.since, t.first_seen
    $$;

    -- Looks at the open transactions, and moves settled_until forward as far as they allow. The caller must read jobs only
    -- in later statements.
    create or replace function priorityd.settle_past(p_cursor priorityd.job_cursor, p_settle_seconds double precision)
    returns priorityd.job_cursor language plpgsql as $$
    begin
        p_cursor.transactions := priorityd.look_at_transactions(p_cursor.transactions, p_cursor.looked_at);
        p_cursor.looked_at := now();
        p_cursor.settled_until := greatest(
            p_cursor.settled_until,
            least(now(), (select min(a.since) from priorityd.awaited_transactions(p_cursor.transactions) a))
                - make_interval(secs => p_settle_seconds)
        );
        return p_cursor;
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Ended jobs
    -- ---------------------------------------------------------------------------------------------------------------

    -- The jobs that ended within a page, by priority and status, with the seconds that each waited, ran, and took
    -- from its creation to its end.
    create or replace function priorityd.read_finished_jobs(
        p_from timestamptz, p_from_id uuid, p_until timestamptz, p_until_id uuid
    )
    returns jsonb language plpgsql stable
    set enable_seqscan = off
    set jit = off
    set plan_cache_mode = force_custom_plan
    as $$
    begin
        return (
            with finished as materialized (
                select j.status::text as status, j.created_at, j.started_at, j.repository_id,
                    priorityd.queued_priority(priorityd.priority_word(priorityd.parsed_payload(j.payload))) as priority,
                    greatest(j.completed_at, j.failed_at) as finished_at
                from public.background_jobs j
                where greatest(j.completed_at, j.failed_at) is not null
                    and (greatest(j.completed_at, j.failed_at), j.id) > (p_from, p_from_id)
                    and (greatest(j.completed_at, j.failed_at), j.id) <= (p_until, p_until_id)
                    -- Other jobs carry the end of an earlier attempt, and are waiting or running again.
                    and j.status::text in ('completed', 'failed', 'cancelled')
            ),
            looked_up as materialized (
                select p.* from priorityd.job_priorities(
                    array(select distinct f.repository_id from finished f where f.priority is null)
                ) p
            ),
            timed as (
                select coalesce(f.priority, l.priority, 'medium') as priority, f.status,
                    priorityd.seconds_between(f.created_at, f.started_at) as wait,
                    priorityd.seconds_between(f.started_at, f.finished_at) as run,
                    priorityd.seconds_between(f.created_at, f.finished_at) as total
                from finished f
                left join looked_up l on l.repository_id = f.repository_id
            )
            select coalesce(jsonb_agg(to_jsonb(g) order by g.priority, g.status), '[]')
            from (
                select t.priority, t.status, count(*) as jobs,
                    coalesce(jsonb_agg(t.wait) filter (where t.wait is not null), '[]') as wait_seconds,
                    coalesce(jsonb_agg(t.run) filter (where t.run is not null), '[]') as run_seconds,
                    coalesce(jsonb_agg(t.total) filter (where t.total is not null), '[]') as total_seconds
                from timed t
                group by t.priority, t.status
            ) g
        );
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- The poll
    -- ---------------------------------------------------------------------------------------------------------------

    -- Moves the cursor to its next page: up to p_limit settled ended jobs and, if there are no others, the starts until
    -- then. `more`: there may be others.
    create or replace function priorityd.turn_job_page(inout p_cursor priorityd.job_cursor, p_limit integer, out more boolean)
    language plpgsql
    set enable_seqscan = off
    set plan_cache_mode = force_custom_plan
    as $$
    declare
        -- Earlier starts are not judged any more: a daemon that was down for days must not read days of starts.
        c_judged constant interval := '1 hour';
        v_last record;
    begin
        p_cursor.page := p_cursor.page + 1;
        p_cursor.finished_from := p_cursor.finished_to;
        p_cursor.finished_from_id := p_cursor.finished_to_id;
        select p.finished_at, p.id, p.n into v_last
        from (
            select f.finished_at, f.id, row_number() over (order by f.finished_at, f.id) as n
            from (
                select greatest(j.completed_at, j.failed_at) as finished_at, j.id
                from public.background_jobs j
                where greatest(j.completed_at, j.failed_at) is not null
                    and (greatest(j.completed_at, j.failed_at), j.id) > (p_cursor.finished_from, p_cursor.finished_from_id)
                    and greatest(j.completed_at, j.failed_at) <= p_cursor.settled_until
                order by 1, 2
                limit p_limit
            ) f
        ) p
        order by p.n desc
        limit 1;
        more := coalesce(v_last.n, 0) >= p_limit;
        p_cursor.finished_to := coalesce(v_last.finished_at, p_cursor.finished_from);
        p_cursor.finished_to_id := coalesce(v_last.id, p_cursor.finished_from_id);
        p_cursor.started_from := p_cursor.started_to;
        if not more then
            p_cursor.started_from := greatest(p_cursor.started_to, p_cursor.settled_until - c_judged);
            p_cursor.started_to := greatest(p_cursor.started_to, p_cursor.settled_until);
        end if;
    end
    $$;

    -- The next page of ended jobs for this daemon and, with the last page, the waiting jobs and the inversions.
    --
    -- p_counted_page is the page that this daemon has counted last (null before the first). A call repeated with the same
    -- number, because the answer was lost, returns the same page. What ended before the first call ever is not counted.
    -- p_settle_seconds: how far the clock that writes the times of jobs may be behind the database's.
    -- held_back_by is the transaction that keeps counted_until from advancing, if an earlier poll has seen it too.
    create or replace function public.poll_background_jobs(
        p_daemon_id uuid, p_counted_page bigint default null, p_limit integer default 1000,
        p_settle_seconds double precision default 5
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '10s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        c_walk_seconds constant double precision := 0.04;
        v_began timestamptz := clock_timestamp();
        v_reason text := priorityd.explain_background_jobs();
        v_cursor priorityd.job_cursor;
        v_turned record;
        -- A repeated page may be followed by another; the next call finds out.
        v_more boolean := true;
    begin
        perform priorityd.check_limit(p_limit);
        perform priorityd.check_daemon(p_daemon_id);
        perform priorityd.check_range('p_settle_seconds', p_settle_seconds, 0, 3600);
        if v_reason is not null then
            return jsonb_build_object(
                'available', false, 'table_exists', to_regclass('public.background_jobs') is not null, 'reason', v_reason
            );
        end if;

        insert into priorityd.job_cursor default values on conflict do nothing;
        select c.* into v_cursor from priorityd.job_cursor c for update;
        if v_cursor.daemon_id is distinct from p_daemon_id or v_cursor.page is not distinct from p_counted_page then
            v_turned := priorityd.turn_job_page(priorityd.settle_past(v_cursor, p_settle_seconds), p_limit);
            v_cursor := v_turned.p_cursor;
            v_cursor.daemon_id := p_daemon_id;
            v_more := v_turned.more;
            if not v_more then
                v_cursor := priorityd.walk_queue(v_cursor, c_walk_seconds);
            end if;
            update priorityd.job_cursor c
            set (
                page, daemon_id, finished_from, finished_from_id, finished_to, finished_to_id, started_from, started_to,
                settled_until, looked_at, transactions,
                queue_after, queue_after_id, queue_walk_began, queue_walk, queue_counted_at, queue_counted
            ) = (
                select v.page, v.daemon_id, v.finished_from, v.finished_from_id, v.finished_to, v.finished_to_id,
                    v.started_from, v.started_to, v.settled_until, v.looked_at, v.transactions,
                    v.queue_after, v.queue_after_id, v.queue_walk_began, v.queue_walk, v.queue_counted_at, v.queue_counted
                from (select v_cursor.*) v
            )
            where c.only_row;
        end if;

        return jsonb_build_object(
            'available', true,
            'page', v_cursor.page,
            'finished', priorityd.read_finished_jobs(
                v_cursor.finished_from, v_cursor.finished_from_id, v_cursor.finished_to, v_cursor.finished_to_id
            ),
            'inversions', case
                when v_cursor.started_from < v_cursor.started_to then priorityd.find_job_inversions(
                    v_cursor.started_from, v_cursor.started_to, v_cursor.queue_counted || v_cursor.queue_walk
                )
                else '{"count": 0, "sample": []}'
            end,
            'queue', case when not v_more then priorityd.describe_queue(v_cursor) end,
            'more', v_more,
            'counted_until', v_cursor.settled_until,
            'held_back_by', (
                select jsonb_build_object('pid', a.pid, 'writes', a.writes, 'seconds', extract(epoch from now() - a.first_seen))
                from priorityd.awaited_transactions(v_cursor.transactions) a
                where a.first_seen < v_cursor.looked_at
                limit 1
            ),
            'database_seconds', extract(epoch from clock_timestamp() - v_began)
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
