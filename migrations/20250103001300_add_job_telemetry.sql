-- Job telemetry: what ended in public.background_jobs since the daemon last looked, what waits there now, and
-- which jobs overtook one of a higher priority. The table is the application's and may be missing; everything
-- here then says so and does nothing: apply this again when the table has been added since. May be left out.
--
-- Each job is to be counted once, over restarts and changes of the daemon that counts, although jobs end in
-- any order and a commit becomes visible later than the time that its row carries. So the cursor is here and
-- not in a daemon, and it moves over the past only: over times so long ago that no transaction which was
-- writing then is still open. That past is one keyset, which nobody adds to any more.

do $tables$
declare
    c_small constant bigint := 100 * 1024 * 1024;
begin
    if not priorityd.start_unit('20250103001300 tables', 1, '{20250103000500 tables}') then
        return;
    end if;

    -- One row. The last page that was handed out is (finished_from, finished_to] and (started_from, started_to];
    -- it is handed out again to the daemon that claimed it until that daemon says that it has counted it.
    if to_regclass('priorityd.job_cursor') is null then
        create table priorityd.job_cursor (
            only_row boolean primary key default true constraint job_cursor_one_row check (only_row),
            page bigint not null default 0,
            daemon_id uuid,
            finished_from timestamptz not null,
            finished_from_id uuid not null default 'ffffffff-ffff-ffff-ffff-ffffffffffff',
            finished_to timestamptz not null,
            finished_to_id uuid not null default 'ffffffff-ffff-ffff-ffff-ffffffffffff',
            started_from timestamptz not null,
            started_to timestamptz not null,
            -- At checkpoint_at every transaction below checkpoint_xid had begun to write, and no other.
            checkpoint_at timestamptz not null,
            checkpoint_xid xid8 not null,
            settled_until timestamptz not null
        );
    end if;

    -- The columns of background_jobs that are missing, or of types that can't be read; null where all is well.
    create or replace function priorityd.unfit_job_columns()
    returns text language sql stable as $$
        select string_agg(n.name, ', ' order by n.position)
        from unnest(
            array['id', 'repository_id', 'status', 'payload', 'created_at', 'started_at', 'completed_at', 'failed_at']
        ) with ordinality n (name, position)
        where not exists (
            select from pg_class c
            join pg_attribute a on a.attrelid = c.oid and a.attname = n.name and not a.attisdropped
            join pg_type t on t.oid = a.atttypid
            where c.oid = to_regclass('public.background_jobs') and c.relkind in ('r', 'p')
                and case
                    when n.name in ('id', 'repository_id') then t.typname = 'uuid'
                    when n.name = 'status' then t.typcategory = 'S'
                        or exists (select from pg_enum e where e.enumtypid = t.oid and e.enumlabel = 'queued')
                    when n.name = 'payload' then t.typname in ('json', 'jsonb')
                    else t.typname = 'timestamptz'
                end
        )
    $$;

    -- A table that can't be read needs no indexes, and they might be impossible.
    if to_regclass('public.background_jobs') is not null and priorityd.unfit_job_columns() is not null then
        delete from priorityd.indexes n where n.table_name = 'background_jobs';
        return;
    end if;
    insert into priorityd.indexes (name, table_name, definition)
    values
        ('idx_background_jobs_finished', 'background_jobs',
         '(greatest(completed_at, failed_at), id) where greatest(completed_at, failed_at) is not null'),
        ('idx_background_jobs_started', 'background_jobs', '(started_at) where started_at is not null'),
        ('idx_background_jobs_queued', 'background_jobs', '(created_at) where status = ''queued''')
    on conflict (name) do nothing;
    -- Building an index makes the writers of its table wait until the transaction ends: not on a large one.
    if pg_relation_size(to_regclass('public.background_jobs')) <= c_small then
        perform priorityd.build_indexes('background_jobs');
    end if;
end
$tables$;

do $functions$
declare
    v_type text;
    v_reason text;
begin
    if not priorityd.start_unit(
        '20250103001300 functions', 1, '{20250103000700 functions, 20250103001300 tables}', '{poll_background_jobs}'
    ) then
        return;
    end if;

    -- The priority of a job: what it was queued with (`payload -> 'priority'`, a word or a score), else its
    -- repository's, else medium. A score between two priorities is worth the lower one; critical ranks with high.
    create or replace function priorityd.queued_priority(p_queued_with jsonb, p_repository_priority text)
    returns text language plpgsql immutable parallel safe as $$
    declare
        v_word constant text := p_queued_with #>> '{}';
    begin
        return case
            when v_word in ('high', 'medium', 'low') then v_word
            when v_word = 'critical' then 'high'
            when v_word ~ '^[0-9]{1,9}(\.[0-9]+)?$' then
                case when v_word::numeric >= 100 then 'high' when v_word::numeric >= 50 then 'medium' else 'low' end
            else priorityd.job_priority(p_repository_priority, false)
        end;
    end
    $$;

    -- Why background_jobs can't be read, in words for an operator, or null if it can.
    create or replace function priorityd.explain_background_jobs()
    returns text language plpgsql stable as $$
    declare
        c_small constant bigint := 8 * 1024 * 1024;
        v_table regclass := to_regclass('public.background_jobs');
        v_wrong text;
    begin
        if v_table is null then
            return 'there is no table background_jobs';
        end if;
        if not has_table_privilege(v_table, 'select') then
            return format('the role %s may not read background_jobs', current_user);
        end if;

        v_wrong := priorityd.unfit_job_columns();
        if v_wrong is not null then
            return format('background_jobs is no table, lacks columns, or has them with an unexpected type: %s', v_wrong);
        end if;
        if not exists (select from priorityd.indexes n where n.table_name = 'background_jobs') then
            return 'background_jobs could not be indexed when the migrations were applied: apply them again';
        end if;

        -- Without its indexes each look would read the whole table. A small one is read all the same.
        select string_agg(array_to_string(n.statements, '; '), '; ' order by n.name) into v_wrong
        from priorityd.missing_indexes(true) n
        where n.table_name = 'background_jobs' and pg_relation_size(v_table) > c_small;
        if v_wrong is not null then
            return format('background_jobs lacks indexes; these hold nobody up, outside a transaction: %s', v_wrong);
        end if;
        return null;
    end
    $$;

    -- Jobs that started after p_from and not after p_until while a job of a higher priority was waiting that had
    -- been created before them: how many, and some of them with one that each overtook.
    --
    -- A job waits until it starts or, if it never does, until it is cancelled. Going backwards through the ends of
    -- all waits, the earliest creation seen so far by priority tells whether a start came too early: one pass, no
    -- comparison of every job with every other. One that had failed before its start has had its turn already,
    -- and is nobody that was overtaken. A job waits
    -- for others of its type, where the table has types. A promotion is counted by itself and is none.
    v_type := case
        when exists (
            select from pg_attribute
            where attrelid = to_regclass('public.background_jobs') and attname = 'type' and not attisdropped
        ) then 'j.type::text'
        else 'null::text'
    end;
    execute format($definition$
        create or replace function priorityd.find_job_inversions(
            p_from timestamptz, p_until timestamptz, p_sample integer default 5
        )
        returns jsonb language plpgsql stable
        set enable_seqscan = off
        set jit = off
        set plan_cache_mode = force_custom_plan
        as $$
        declare
            v_found jsonb;
        begin
            with waits as (
                select j.id, j.created_at, j.started_at, j.started_at as waited_until, j.repository_id, %1$s as type,
                    j.payload::jsonb -> 'priority' as queued_with, (j.failed_at < j.started_at) is not true as first_turn,
                    j.payload::jsonb #>> '{metadata,promoted}' is not distinct from 'true' as promoted
                from public.background_jobs j
                where j.started_at > p_from
                union all
                select j.id, j.created_at, null, 'infinity', j.repository_id, %1$s, j.payload::jsonb -> 'priority', true,
                    false
                from public.background_jobs j
                where j.status = 'queued' and j.started_at is null
                union all
                select j.id, j.created_at, null, greatest(j.completed_at, j.failed_at), j.repository_id, %1$s,
                    j.payload::jsonb -> 'priority', true, false
                from public.background_jobs j
                where greatest(j.completed_at, j.failed_at) is not null
                    and greatest(j.completed_at, j.failed_at) > p_from
                    and j.started_at is null and j.status <> 'queued'
            ),
            placed as (
                select w.*, tr.priority as repository_priority
                from waits w
                left join lateral (
                    select tr.priority::text from public.tracked_repositories tr
                    where tr.repository_id = w.repository_id
                    limit 1
                ) tr on true
            ),
            -- Of the many that may be queued only the earliest can make a difference.
            telling as (
                select p.* from placed p where p.waited_until < 'infinity'
                union all
                (
                    select distinct on (p.type, p.queued_with, p.repository_priority) p.* from placed p
                    where p.waited_until = 'infinity'
                    order by p.type, p.queued_with, p.repository_priority, p.created_at, p.id
                )
            ),
            ranked as materialized (
                select t.id, t.type, t.created_at, t.started_at, t.waited_until, t.first_turn, t.promoted, p.priority,
                    array_position(array['low', 'medium', 'high'], p.priority) as rank
                from telling t
                cross join lateral (
                    select priorityd.queued_priority(t.queued_with, t.repository_priority) as priority
                ) p
            ),
            judged as (
                select r.*,
                    min(r.created_at) filter (where r.first_turn and r.rank = 3) over later as earliest_high,
                    min(r.created_at) filter (where r.first_turn and r.rank >= 2) over later as earliest_medium
                from ranked r
                -- Strictly later: two that start in one transaction have the same time, and neither waits for the other.
                window later as (
                    partition by r.type
                    order by r.waited_until desc groups between unbounded preceding and 1 preceding
                )
            ),
            inverted as (
                select j.id, j.type, j.priority, j.rank, j.created_at, j.started_at
                from judged j
                where j.started_at <= p_until and not j.promoted
                    and j.created_at > case j.rank when 1 then j.earliest_medium when 2 then j.earliest_high end
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
                                and r.created_at < s.created_at and r.waited_until > s.started_at
                            order by r.created_at, r.id
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

    -- What is queued now, by priority. Reads the queue and nothing else of the table.
    create or replace function priorityd.count_queued_jobs()
    returns jsonb language plpgsql stable
    set enable_seqscan = off
    set jit = off
    as $$
    begin
        return (
            select coalesce(jsonb_agg(to_jsonb(w) order by w.priority), '[]')
            from (
                select priorityd.queued_priority(g.queued_with, g.repository_priority) as priority,
                    sum(g.jobs)::bigint as jobs,
                    greatest(extract(epoch from clock_timestamp() - min(g.oldest)), 0) as oldest_seconds
                from (
                    select j.payload::jsonb -> 'priority' as queued_with, tr.priority as repository_priority,
                        count(*) as jobs, min(j.created_at) as oldest
                    from public.background_jobs j
                    left join lateral (
                        select tr.priority::text from public.tracked_repositories tr
                        where tr.repository_id = j.repository_id
                        limit 1
                    ) tr on true
                    where j.status = 'queued'
                    group by 1, 2
                ) g
                group by 1
            ) w
        );
    end
    $$;

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
            with finished as (
                select j.status::text as status, j.created_at, j.started_at, j.repository_id,
                    j.payload::jsonb -> 'priority' as queued_with,
                    greatest(j.completed_at, j.failed_at) as finished_at
                from public.background_jobs j
                where greatest(j.completed_at, j.failed_at) is not null
                    and (greatest(j.completed_at, j.failed_at), j.id) > (p_from, p_from_id)
                    and (greatest(j.completed_at, j.failed_at), j.id) <= (p_until, p_until_id)
            ),
            timed as (
                select priorityd.queued_priority(f.queued_with, tr.priority) as priority, f.status,
                    round(greatest(extract(epoch from f.started_at - f.created_at), 0), 3) as wait,
                    round(greatest(extract(epoch from f.finished_at - f.started_at), 0), 3) as run,
                    round(greatest(extract(epoch from f.finished_at - f.created_at), 0), 3) as total
                from finished f
                left join lateral (
                    select tr.priority::text from public.tracked_repositories tr
                    where tr.repository_id = f.repository_id
                    limit 1
                ) tr on true
                -- Others carry the end of an attempt before the one that is waiting or running now.
                where f.status in ('completed', 'failed', 'cancelled')
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

    -- The next page of ended jobs for this daemon and, with the last page, what waits now and what was overtaken.
    --
    -- p_counted_page is the page that this daemon has counted last (null before the first). Asked again with the
    -- same number, because the answer was lost, the same page comes again; so a call may be repeated. With the
    -- first call ever everything before it is history, and not looked at.
    -- p_settle_seconds: how far the clock that writes the times of jobs may be behind the database's.
    create or replace function public.poll_background_jobs(
        p_daemon_id uuid, p_counted_page bigint default null, p_limit integer default 1000,
        p_settle_seconds double precision default 5
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '10s'
    set enable_seqscan = off
    set jit = off
    set plan_cache_mode = force_custom_plan
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        -- Nothing waits for a transaction that stays open for longer: it may have been forgotten.
        c_longest_transaction constant interval := '1 hour';
        -- Starts before that are not judged any more: a daemon that was down for days must not read days of starts.
        c_judged constant interval := '1 hour';
        v_began timestamptz := clock_timestamp();
        v_reason text := priorityd.explain_background_jobs();
        v_cursor priorityd.job_cursor;
        v_jobs bigint;
        v_more boolean;
    begin
        perform priorityd.check_limit(p_limit);
        perform priorityd.check_daemon(p_daemon_id);
        if v_reason is not null then
            return jsonb_build_object('available', false, 'reason', v_reason);
        end if;

        insert into priorityd.job_cursor (
            finished_from, finished_to, started_from, started_to, checkpoint_at, checkpoint_xid, settled_until
        )
        values (now(), now(), now(), now(), now(), pg_snapshot_xmax(pg_current_snapshot()), now())
        on conflict do nothing;
        select c.* into v_cursor from priorityd.job_cursor c for update;

        if v_cursor.daemon_id is distinct from p_daemon_id or v_cursor.page is not distinct from p_counted_page then
            if v_cursor.checkpoint_xid <= pg_snapshot_xmin(pg_current_snapshot())
                or v_cursor.checkpoint_at < now() - c_longest_transaction then
                v_cursor.settled_until := greatest(
                    v_cursor.settled_until, v_cursor.checkpoint_at - make_interval(secs => p_settle_seconds)
                );
                -- now() is before the snapshot: whoever began to write after it has begun after that time, too.
                v_cursor.checkpoint_at := now();
                v_cursor.checkpoint_xid := pg_snapshot_xmax(pg_current_snapshot());
            end if;

            v_cursor.page := v_cursor.page + 1;
            v_cursor.daemon_id := p_daemon_id;
            v_cursor.finished_from := v_cursor.finished_to;
            v_cursor.finished_from_id := v_cursor.finished_to_id;
            select p.finished_at, p.id, p.n into v_cursor.finished_to, v_cursor.finished_to_id, v_jobs
            from (
                select f.finished_at, f.id, row_number() over (order by f.finished_at, f.id) as n
                from (
                    select greatest(j.completed_at, j.failed_at) as finished_at, j.id
                    from public.background_jobs j
                    where greatest(j.completed_at, j.failed_at) is not null
                        and (greatest(j.completed_at, j.failed_at), j.id)
                            > (v_cursor.finished_from, v_cursor.finished_from_id)
                        and greatest(j.completed_at, j.failed_at) <= v_cursor.settled_until
                    order by 1, 2
                    limit p_limit
                ) f
            ) p
            order by p.n desc
            limit 1;
            v_more := coalesce(v_jobs, 0) >= p_limit;
            if v_jobs is null then
                v_cursor.finished_to := v_cursor.finished_from;
                v_cursor.finished_to_id := v_cursor.finished_from_id;
            end if;
            v_cursor.started_from := v_cursor.started_to;
            if not v_more then
                v_cursor.started_from := greatest(v_cursor.started_to, v_cursor.settled_until - c_judged);
                v_cursor.started_to := greatest(v_cursor.started_to, v_cursor.settled_until);
            end if;

            update priorityd.job_cursor c
            set page = v_cursor.page, daemon_id = v_cursor.daemon_id,
                finished_from = v_cursor.finished_from, finished_from_id = v_cursor.finished_from_id,
                finished_to = v_cursor.finished_to, finished_to_id = v_cursor.finished_to_id,
                started_from = v_cursor.started_from, started_to = v_cursor.started_to,
                checkpoint_at = v_cursor.checkpoint_at, checkpoint_xid = v_cursor.checkpoint_xid,
                settled_until = v_cursor.settled_until
            where c.only_row;
        else
            -- A repeated page may be followed by another; the next call tells.
            v_more := true;
        end if;

        return jsonb_build_object(
            'available', true,
            'page', v_cursor.page,
            'finished', priorityd.read_finished_jobs(
                v_cursor.finished_from, v_cursor.finished_from_id, v_cursor.finished_to, v_cursor.finished_to_id
            ),
            'inversions', case
                when v_cursor.started_from < v_cursor.started_to then
                    priorityd.find_job_inversions(v_cursor.started_from, v_cursor.started_to)
                else '{"count": 0, "sample": []}'
            end,
            'waiting', case when not v_more then priorityd.count_queued_jobs() end,
            'more', v_more,
            'counted_until', v_cursor.settled_until,
            'database_seconds', extract(epoch from clock_timestamp() - v_began)
        );
    end
    $$;

    v_reason := priorityd.explain_background_jobs();
    if v_reason is not null then
        raise warning 'job telemetry is off: %', v_reason;
    end if;
    perform priorityd.grant_access();
end
$functions$;
