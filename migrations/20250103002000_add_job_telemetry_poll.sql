-- Job telemetry, second part: jobs that overtook one of a higher priority, the settled past, and the poll.

do $functions$
declare
    v_type text;
begin
    if not priorityd.start_unit('20250103002000 functions', 1, '{20250103001900 functions}', '{poll_background_jobs}') then
        return;
    end if;

    -- The ordered jobs that were sent within the last minute before p_until: they wait until they say that they have started.
    -- Of one that has not for longer nobody knows whether it waits, is at work or is lost.
    create or replace function priorityd.jobs_about_to_start(p_until timestamptz)
    returns uuid[] language plpgsql stable as $$
    declare
        c_while constant interval := '1 min';
    begin
        if to_regclass('priorityd.ordered_jobs') is null then
            return '{}';
        end if;
        return array(
            select o.job_id from priorityd.jobs_in_flight(priorityd.ids_in_flight()) o
            where o.losses = 0 and o.sent_at > p_until - c_while
        );
    end
    $$;

    -- Since when the jobs of these repositories have had their current priority, by the trail; no row if always.
    create or replace function priorityd.job_priorities_since(p_repository_ids uuid[])
    returns table (repository_id uuid, since timestamptz)
    language sql stable as $$
        select u.id, l.changed_at
        from unnest(p_repository_ids) u (id)
        cross join lateral (
            select c.changed_at from public.repository_priority_changes c
            where c.repository_id = u.id
                and priorityd.job_priority(c.old_priority, c.old_is_workspace_repo)
                    <> priorityd.job_priority(c.new_priority, c.is_workspace_repo)
            order by c.id desc
            limit 1
        ) l
    $$;

    -- Jobs that started after p_from and not after p_until, p_margin_seconds or more before one of a higher priority that was
    -- queued no later: how many, and some of them with one that each overtook. Of what is queued the groups of a walk
    -- (p_queue) name the jobs to look at: their first ones.
    --
    -- A job waits until it starts or, if it never does, until it is cancelled. Going backwards through the ends of
    -- all waits, the earliest since when a job waits with its priority, seen so far, tells whether a start came too early:
    -- one pass, no comparison of every job with every other. One that had failed before its start has had its turn already,
    -- and is nobody that was overtaken. A promotion is counted by itself and is none.
    v_type := case
        when exists (
            select from pg_attribute
            where attrelid = to_regclass('public.background_jobs') and attname = 'type' and not attisdropped
        ) then 'left(j.type::text, 200)'
        else 'null::text'
    end;
    execute format($definition$
        create or replace function priorityd.find_job_inversions(
            p_from timestamptz, p_until timestamptz, p_queue jsonb, p_sample integer default 5,
            p_margin_seconds double precision default 1
        )
        returns jsonb language plpgsql stable
        set enable_seqscan = off
        set jit = off
        set plan_cache_mode = force_custom_plan
        as $$
        declare
            -- A start that is dated later than that means nothing.
            c_end constant timestamptz := p_until + interval '1 day';
            v_about_to_start constant uuid[] := priorityd.jobs_about_to_start(p_until);
            v_found jsonb;
        begin
            with read as materialized (
                select j.id, j.created_at, j.started_at, j.started_at as waited_until, j.repository_id, %1$s as type,
                    priorityd.parsed_payload(j.payload) as payload, (j.failed_at < j.started_at) is not true as first_turn
                from public.background_jobs j
                where j.started_at > p_from
                union all
                select j.id, j.created_at, null, 'infinity', j.repository_id, %1$s, priorityd.parsed_payload(j.payload), true
                from (
                    select distinct q.first_at, q.first_id
                    from jsonb_to_recordset(p_queue) q (first_at timestamptz, first_id uuid)
                ) f
                join public.background_jobs j on j.created_at = f.first_at and j.id = f.first_id
                where j.status = 'queued' and j.started_at is null
                union all
                select j.id, j.created_at, null, 'infinity', j.repository_id, %1$s, priorityd.parsed_payload(j.payload), true
                from public.background_jobs j
                where j.id = any (v_about_to_start) and j.status = 'queued' and j.started_at is null
                union all
                select j.id, j.created_at, null, greatest(j.completed_at, j.failed_at), j.repository_id, %1$s,
                    priorityd.parsed_payload(j.payload), true
                from public.background_jobs j
                where greatest(j.completed_at, j.failed_at) is not null
                    and greatest(j.completed_at, j.failed_at) > p_from
                    and j.started_at is null and j.status::text = 'cancelled'
            ),
            waits as materialized (
                select r.id, r.created_at, r.started_at, r.repository_id, r.type, r.first_turn,
                    case when r.waited_until < c_end then r.waited_until else 'infinity' end as waited_until,
                    priorityd.queued_priority(priorityd.priority_word(r.payload)) as queued_with,
                    priorityd.was_released(r.payload) as released,
                    r.payload #>> '{metadata,promoted}' is not distinct from 'true' as promoted
                from read r
            ),
            looked_up as materialized (
                select p.* from priorityd.job_priorities(
                    array(select distinct w.repository_id from waits w where w.queued_with is null)
                ) p
            ),
            -- A job that was queued with its priority has it since then.
            risen as materialized (
                select p.* from priorityd.job_priorities_since(
                    array(select distinct w.repository_id from waits w where w.queued_with is null or w.released)
                ) p
            ),
            ranked as materialized (
                select w.*, p.priority, array_position(array['low', 'medium', 'high'], p.priority) as rank,
                    case
                        when w.queued_with is null or w.released then greatest(w.created_at, s.since) else w.created_at
                    end as since
                from waits w
                left join looked_up l on l.repository_id = w.repository_id
                left join risen s on s.repository_id = w.repository_id
                cross join lateral (select coalesce(w.queued_with, l.priority, 'medium') as priority) p
            ),
            judged as (
                select r.*,
                    min(r.since) filter (where r.first_turn and r.rank = 3) over later as earliest_high,
                    min(r.since) filter (where r.first_turn and r.rank >= 2) over later as earliest_medium
                from ranked r
                window later as (
                    partition by r.type
                    order by r.waited_until desc
                    range between unbounded preceding and make_interval(secs => p_margin_seconds) preceding
                )
            ),
            inverted as (
                select j.id, j.type, j.priority, j.rank, j.created_at, j.started_at
                from judged j
                where j.started_at <= p_until and not j.promoted
                    and j.created_at >= case j.rank when 1 then j.earliest_medium when 2 then j.earliest_high end
            ),
            sample as (
                select i.* from inverted i order by i.started_at desc, i.id limit p_sample
            )
            select jsonb_build_object(
                'count', (select count(*) from inverted),
                'sample', coalesce(
                    (
                        select jsonb_agg(
                            jsonb_build_object(
                                'job_id', s.id, 'priority', s.priority, 'started_at', s.started_at,
                                'waiting_job_id', h.id, 'waiting_priority', h.priority
                            )
                            order by s.started_at desc, s.id
                        )
                        from sample s
                        cross join lateral (
                            select r.id, r.priority from ranked r
                            where r.first_turn and r.rank > s.rank and r.type is not distinct from s.type
                                and r.since <= s.created_at
                                and r.waited_until >= s.started_at + make_interval(secs => p_margin_seconds)
                            order by r.since, r.id
                            limit 1
                        ) h
                    ),
                    '[]'
                )
            )
            into v_found;
            return v_found;
        end
        $$;
    $definition$, v_type);

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
        -- A repeated page may be followed by another; the next call tells.
        v_more boolean := true;
    begin
        perform priorityd.check_limit(p_limit);
        perform priorityd.check_daemon(p_daemon_id);
        perform priorityd.check_range('p_settle_seconds', p_settle_seconds, 0, 3600);
        if v_reason is not null then
            return jsonb_build_object('available', false, 'reason', v_reason);
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
