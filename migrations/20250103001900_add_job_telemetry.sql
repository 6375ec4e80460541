-- Job telemetry: the jobs in public.background_jobs that ended since the daemon last looked, those that wait now, and
-- those that overtook one of a higher priority. The table is the application's and may be missing; everything here
-- then says so and does nothing: apply this again once the table has been added. This file and the next two may be left
-- out, all together.
--
-- *Ended jobs.* Each must be counted once, across restarts and changes of the daemon that counts, although jobs end in
-- any order and a commit becomes visible later than the time in its row. So the cursor is kept here and not in a
-- daemon, and it moves only over the settled past: over times so long ago that no transaction that began then is still
-- open (see look_at_transactions). Nothing is added to that past any more, so it can be paged by key.
--
-- *The queue.* It may be long, and no index of ours can know a job's priority. So each poll walks along it only briefly,
-- beginning at its oldest job, and the next one continues: a short queue is counted by every poll; for a long one, the
-- last complete count is returned, with its age. Inversions are judged by the first job of each priority that the walk has
-- met and that still waits: in a long queue some may be missed, but none is invented.
--
-- *Inversions.* A job is one if it started, without being promoted, a second or more before another of its type and of a
-- higher priority that had been queued no later. A release can't be called back, and what was released in order starts some
-- tenths of a second later in any order: hence the second. What counts is what is known: started_at of both, or that
-- the other one waits or was cancelled. Times of starts are compared with each other only, as those of creations are, since they
-- may be of different clocks. A job whose priority rose while it waited counts from then on.

do $tables$
declare
    c_small constant bigint := 100 * 1024 * 1024;
begin
    if not priorityd.start_unit('20250103001900 tables', 1, '{20250103000600 tables}') then
        return;
    end if;

    -- One row. The last page that was handed out is (finished_from, finished_to] and (started_from, started_to]; it is
    -- handed out again to the same daemon until that daemon says that it has counted it.
    if to_regclass('priorityd.job_cursor') is null then
        create table priorityd.job_cursor (
            only_row boolean primary key default true constraint job_cursor_one_row check (only_row),
            page bigint not null default 0,
            daemon_id uuid,
            finished_from timestamptz not null default now(),
            finished_from_id uuid not null default 'ffffffff-ffff-ffff-ffff-ffffffffffff',
            finished_to timestamptz not null default now(),
            finished_to_id uuid not null default 'ffffffff-ffff-ffff-ffff-ffffffffffff',
            started_from timestamptz not null default now(),
            started_to timestamptz not null default now(),
            settled_until timestamptz not null default now(),
            -- The transactions that were open at looked_at: see look_at_transactions.
            looked_at timestamptz not null default now(),
            transactions jsonb not null default '{}',
            -- The current walk has counted the queue up to this job; null: there is none. The last complete walk began at
            -- queue_counted_at. A count is an array of groups, by type and priority.
            queue_after timestamptz,
            queue_after_id uuid,
            queue_walk_began timestamptz,
            queue_walk jsonb not null default '[]',
            queue_counted_at timestamptz,
            queue_counted jsonb not null default '[]'
        );
    end if;

    -- What is wrong with the columns of background_jobs, or null.
    create or replace function priorityd.explain_job_columns()
    returns text language plpgsql stable as $$
    declare
        c_table constant regclass := to_regclass('public.background_jobs');
        v_wrong text;
    begin
        select string_agg(n.name, ', ' order by n.position) into v_wrong
        from unnest(
            array['id', 'repository_id', 'status', 'payload', 'created_at', 'started_at', 'completed_at', 'failed_at']
        ) with ordinality n (name, position)
        where not exists (
            select from pg_class c
            join pg_attribute a on a.attrelid = c.oid and a.attname = n.name and not a.attisdropped
            join pg_type t on t.oid = a.atttypid
            where c.oid = c_table and c.relkind in ('r', 'p')
                and case
                    when n.name in ('id', 'repository_id') then t.typname = 'uuid'
                    when n.name = 'status' then t.typtype = 'e' or t.typcategory = 'S'
                    when n.name = 'payload' then t.typname in ('json', 'jsonb')
                    else t.typname = 'timestamptz'
                end
        );
        if v_wrong is not null then
            return format('background_jobs is not a table, lacks columns, or has them with an unexpected type: %s', v_wrong);
        end if;
        if exists (
            select from pg_attribute a join pg_type t on t.oid = a.atttypid
            where a.attrelid = c_table and a.attname = 'status' and t.typtype = 'e' and not exists (
                select from pg_enum e where e.enumtypid = t.oid and e.enumlabel = 'queued'
            )
        ) then
            return 'the status of background_jobs is an enum without the label queued';
        end if;
        return null;
    end
    $$;

    -- A table that can't be read needs no indexes, and creating them might fail.
    if to_regclass('public.background_jobs') is not null and priorityd.explain_job_columns() is not null then
        delete from priorityd.indexes n where n.table_name = 'background_jobs';
        return;
    end if;
    insert into priorityd.indexes (name, table_name, definition)
    values
        ('idx_background_jobs_finished', 'background_jobs',
         '(greatest(completed_at, failed_at), id) where greatest(completed_at, failed_at) is not null'),
        ('idx_background_jobs_started', 'background_jobs', '(started_at) where started_at is not null'),
        ('idx_background_jobs_queued', 'background_jobs', '(created_at, id) where status = ''queued''')
    on conflict (name) do nothing;
    perform priorityd.demand_index_names();
    -- Building an index blocks the table's writers until the transaction ends, so a large table is left alone.
    if priorityd.table_size(to_regclass('public.background_jobs')) <= c_small then
        perform priorityd.build_indexes('background_jobs');
    end if;
end
$tables$;

do $functions$
declare
    v_type text;
    v_reason text;
begin
    if not priorityd.start_unit('20250103001900 functions', 1, '{20250103001000 functions, 20250103001900 tables}') then
        return;
    end if;

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
        v_wrong := priorityd.explain_job_columns();
        if v_wrong is not null then
            return v_wrong;
        end if;
        if not exists (select from priorityd.indexes n where n.table_name = 'background_jobs') then
            return 'background_jobs could not be indexed when the migrations were applied: apply them again';
        end if;

        -- Without the indexes each poll would read the whole table, which is acceptable only if it is small.
        select string_agg(array_to_string(n.statements, '; '), '; ' order by n.name) into v_wrong
        from priorityd.missing_indexes(true) n
        where n.table_name = 'background_jobs' and priorityd.table_size(v_table) > c_small;
        if v_wrong is not null then
            return format('background_jobs lacks indexes; run this, which blocks nobody, outside a transaction: %s', v_wrong);
        end if;
        return null;
    end
    $$;

    -- Whether this is the payload of an ordered job that has been released at some time.
    create or replace function priorityd.was_released(p_payload jsonb)
    returns boolean language sql immutable parallel safe as $$
        select p_payload #> '{metadata,promoted}' is not null
    $$;

    -- Null if either is missing or infinite.
    create or replace function priorityd.seconds_between(p_from timestamptz, p_until timestamptz)
    returns numeric language sql immutable parallel safe as $$
        select case
            when isfinite(p_from) and isfinite(p_until) then round(greatest(extract(epoch from p_until - p_from), 0), 3)
        end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- The queue
    -- ---------------------------------------------------------------------------------------------------------------

    -- Merges the groups of several counts. Only 100 types are kept apart, since a type may be anything.
    create or replace function priorityd.add_job_groups(p_groups jsonb)
    returns jsonb language sql immutable as $$
        select coalesce(jsonb_agg(to_jsonb(a)), '[]')
        from (
            select t.type, t.priority, sum(t.jobs) as jobs, min(t.oldest_at) as oldest_at,
                min(t.first_at) as first_at, (array_agg(t.first_id order by t.first_at, t.first_id))[1] as first_id
            from (
                select case when dense_rank() over (order by g.type) <= 100 then g.type end as type,
                    g.priority, g.jobs, g.oldest_at, g.first_at, g.first_id
                from jsonb_to_recordset(p_groups) g (
                    type text, priority text, jobs bigint, oldest_at timestamptz, first_at timestamptz, first_id uuid
                )
            ) t
            group by t.type, t.priority
        ) a
    $$;

    -- The next p_limit queued jobs after a key: how many there were, the key of the last, and their groups. The first job
    -- of a group is the oldest that has neither started nor been released: one that was may run without having said so,
    -- or be lost. A job waits for others of its type, where the table has types.
    v_type := case
        when exists (
            select from pg_attribute
            where attrelid = to_regclass('public.background_jobs') and attname = 'type' and not attisdropped
        ) then 'left(j.type::text, 200)'
        else 'null::text'
    end;
    execute format($definition$
        create or replace function priorityd.read_queue(
            p_after timestamptz, p_after_id uuid, p_limit integer,
            out jobs bigint, out last_at timestamptz, out last_id uuid, out groups jsonb
        )
        language plpgsql stable
        set enable_seqscan = off
        set jit = off
        set plan_cache_mode = force_custom_plan
        as $$
        begin
            with slice as materialized (
                select s.id, s.created_at, s.repository_id, s.type, coalesce(priorityd.priority_word(s.payload), '') as word,
                    s.started_at is null and not priorityd.was_released(s.payload) as waits,
                    row_number() over (order by s.created_at, s.id) as n
                from (
                    select j.id, j.created_at, j.repository_id, j.started_at, %s as type,
                        priorityd.parsed_payload(j.payload) as payload
                    from public.background_jobs j
                    where j.status = 'queued' and (j.created_at, j.id) > (p_after, p_after_id)
                    order by j.created_at, j.id
                    limit p_limit
                ) s
            ),
            words as materialized (
                select d.word, priorityd.queued_priority(d.word) as priority
                from (select distinct s.word from slice s) d
            ),
            queued as materialized (
                select s.*, w.priority from slice s join words w on w.word = s.word
            ),
            -- Repositories are looked up once each, and only where they decide.
            looked_up as materialized (
                select p.* from priorityd.job_priorities(
                    array(select distinct q.repository_id from queued q where q.priority is null)
                ) p
            ),
            grouped as (
                select q.type, coalesce(q.priority, l.priority, 'medium') as priority, count(*) as jobs,
                    min(q.created_at) as oldest_at, min(q.n) filter (where q.waits) as first_n
                from queued q
                left join looked_up l on l.repository_id = q.repository_id
                group by 1, 2
            ),
            described as (
                select g.type, g.priority, g.jobs, g.oldest_at, f.created_at as first_at, f.id as first_id
                from grouped g
                left join slice f on f.n = g.first_n
            )
            select s.n, s.created_at, s.id, (select jsonb_agg(to_jsonb(d)) from described d)
            into jobs, last_at, last_id, groups
            from slice s
            where s.n = (select max(a.n) from slice a);
        end
        $$;
    $definition$, v_type);

    -- Continues the walk along the queue for p_seconds, by at least one slice and at most to the end.
    create or replace function priorityd.walk_queue(p_cursor priorityd.job_cursor, p_seconds double precision)
    returns priorityd.job_cursor language plpgsql as $$
    declare
        c_slice constant integer := 5000;
        v_ends_at constant timestamptz := clock_timestamp() + make_interval(secs => p_seconds);
        v_slice record;
    begin
        if p_cursor.queue_after is null then
            p_cursor.queue_after := '-infinity';
            p_cursor.queue_after_id := '00000000-0000-0000-0000-000000000000';
            p_cursor.queue_walk_began := clock_timestamp();
            p_cursor.queue_walk := '[]';
        end if;
        loop
            v_slice := priorityd.read_queue(p_cursor.queue_after, p_cursor.queue_after_id, c_slice);
            p_cursor.queue_walk := priorityd.add_job_groups(p_cursor.queue_walk || coalesce(v_slice.groups, '[]'));
            if coalesce(v_slice.jobs, 0) < c_slice then
                p_cursor.queue_counted := p_cursor.queue_walk;
                p_cursor.queue_counted_at := p_cursor.queue_walk_began;
                p_cursor.queue_after := null;
                p_cursor.queue_walk := '[]';
                return p_cursor;
            end if;
            p_cursor.queue_after := v_slice.last_at;
            p_cursor.queue_after_id := v_slice.last_id;
            if clock_timestamp() >= v_ends_at then
                return p_cursor;
            end if;
        end loop;
    end
    $$;

    -- What was queued at counted_at, by priority. Until the first walk is complete, it is what the walk has met so far
    -- (`whole` is false), a lower bound.
    create or replace function priorityd.describe_queue(p_cursor priorityd.job_cursor)
    returns jsonb language plpgsql stable as $$
    declare
        v_whole constant boolean := p_cursor.queue_counted_at is not null;
        v_counted_at constant timestamptz := coalesce(p_cursor.queue_counted_at, p_cursor.queue_walk_began);
    begin
        return jsonb_build_object(
            'whole', v_whole,
            'counted_at', v_counted_at,
            'age_seconds', priorityd.seconds_between(v_counted_at, clock_timestamp()),
            'jobs', (
                select coalesce(jsonb_agg(to_jsonb(w) order by w.priority), '[]')
                from (
                    select g.priority, sum(g.jobs) as jobs,
                        coalesce(priorityd.seconds_between(min(g.oldest_at), v_counted_at), 0) as oldest_seconds
                    from jsonb_to_recordset(case when v_whole then p_cursor.queue_counted else p_cursor.queue_walk end) g (
                        priority text, jobs bigint, oldest_at timestamptz
                    )
                    group by g.priority
                ) w
            )
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
