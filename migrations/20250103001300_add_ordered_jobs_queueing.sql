-- Queueing ordered jobs.

do $functions$
begin
    if not priorityd.start_unit(
        '20250103001300 functions', 1, '{20250103001200 functions}', '{queue_repository_jobs}'
    ) then
        return;
    end if;

    -- Those of these repositories that background_jobs can't refer to because of its foreign key.
    create or replace function priorityd.repositories_unknown_to_jobs(p_repository_ids uuid[])
    returns uuid[] language plpgsql stable as $$
    declare
        v_known regclass;
        v_column name;
        v_unknown uuid[];
    begin
        select c.confrelid, f.attname into v_known, v_column
        from pg_constraint c
        join pg_attribute a on a.attrelid = c.conrelid and a.attname = 'repository_id'
        join pg_attribute f on f.attrelid = c.confrelid and f.attnum = c.confkey[1]
        where c.conrelid = 'public.background_jobs'::regclass and c.contype = 'f' and c.conkey = array[a.attnum]
        limit 1;
        -- If the caller may not see all repositories, only the foreign key itself can decide.
        if v_known is null or not has_table_privilege(v_known, 'select') or row_security_active(v_known) then
            return '{}';
        end if;
        execute format(
            'select array(select distinct u.id from unnest($1) u (id)
                 where not exists (select from %s r where r.%I = u.id))', v_known, v_column)
        into v_unknown using p_repository_ids;
        return v_unknown;
    end
    $$;

    -- Raises if background_jobs lacks columns or has them with other types, or if its statuses are an enum without an
    -- indispensable one. `processing` is not, and if there is no `cancelled`, a cancelled job is `failed`.
    create or replace function priorityd.check_job_table()
    returns void language plpgsql stable as $$
    declare
        c_table constant regclass := to_regclass('public.background_jobs');
        v_wrong text;
        v_missing text;
    begin
        select string_agg(
                format('%s is %s', n.name, coalesce('of type ' || format_type(a.atttypid, a.atttypmod), 'missing')), ', '
                order by n.name
            )
        into v_wrong
        from (values
            ('id', '{uuid}'::regtype[]), ('type', null), ('payload', '{json,jsonb}'), ('status', null),
            ('repository_id', '{uuid}'), ('created_at', null)
        ) n (name, types)
        left join pg_attribute a on a.attrelid = c_table and a.attname = n.name and not a.attisdropped
        where a.attname is null or (priorityd.base_type(c_table, a.attname)).type <> all (n.types);
        if v_wrong is not null then
            raise exception 'background_jobs can''t hold ordered jobs: %', v_wrong
                using errcode = 'invalid_parameter_value', hint = 'They need an id and a repository_id of'
                    ' type uuid, a payload of json or jsonb, a type, a status and created_at.';
        end if;
        select string_agg(w.word, ', ' order by w.word) into v_missing
        from pg_attribute a
        join pg_type t on t.oid = a.atttypid and t.typtype = 'e'
        cross join unnest(array['queued', 'completed', 'failed']) w (word)
        where a.attrelid = 'public.background_jobs'::regclass and a.attname = 'status'
            and not exists (select from pg_enum e where e.enumtypid = t.oid and e.enumlabel = w.word);
        if v_missing is not null then
            raise exception 'background_jobs can''t hold ordered jobs: its status enum lacks %', v_missing
                using errcode = 'invalid_parameter_value', hint = 'Add the labels: alter type ... add value ....';
        end if;
    end
    $$;

    -- These jobs with what queueing adds to each: its position, an id, its type and its payload, or the reason if it is
    -- refused.
    create or replace function priorityd.name_jobs(p_jobs jsonb, p_job_type text)
    returns jsonb[] language plpgsql as $$
    begin
        return array(
            select case
                when j.reason is not null then jsonb_build_object(
                    'position', j.pos, 'job_id', j.job -> 'job_id', 'repository_id', j.job -> 'repository_id',
                    'reason', j.reason
                )
                else jsonb_build_object(
                    'position', j.pos,
                    'job_id', coalesce((j.job ->> 'job_id')::uuid, gen_random_uuid()),
                    'job_type', j.job_type,
                    'repository_id', (j.job ->> 'repository_id')::uuid,
                    'payload', priorityd.job_data(j.job)
                )
            end
            from priorityd.judge_jobs(p_jobs, p_job_type) j
            order by j.pos
        );
    end
    $$;

    -- Whether all deferred constraints are met so far.
    create or replace function priorityd.deferred_are_met()
    returns boolean language plpgsql as $$
    begin
        perform priorityd.check_deferred();
        return true;
    exception
        when others or assert_failure then
            return false;
    end
    $$;

    -- Writes these named jobs into background_jobs, except those that are there already; `inserted` has the ids of the
    -- new ones. A job that the application's triggers, checks or constraints refuse makes the INSERT fail: then each half
    -- is tried separately, until the jobs that fail are known; `refused` lists them with the reason.
    -- Deferred constraints are checked unless they fail already, because of what the caller's transaction has done before.
    create or replace function priorityd.insert_job_rows(
        p_named jsonb[], p_check boolean, out inserted uuid[], out refused jsonb[]
    )
    language plpgsql as $$
    declare
        v_half constant integer := cardinality(p_named) / 2;
        v_now constant timestamptz := clock_timestamp();
        v_first record;
        v_second record;
        v_state text;
        v_message text;
    begin
        inserted := '{}';
        refused := '{}';
        if cardinality(p_named) = 0 then
            return;
        end if;
        begin
            with named as (
                select (n.job ->> 'job_id')::uuid as job_id, n.job ->> 'job_type' as job_type, n.job -> 'payload' as payload,
                    (n.job ->> 'repository_id')::uuid as repository_id
                from unnest(p_named) n (job)
            ),
            written as (
                insert into public.background_jobs (id, type, payload, status, repository_id, created_at)
                select n.job_id, n.job_type, n.payload || jsonb_build_object('jobId', n.job_id), 'queued', n.repository_id, v_now
                from named n
                where not exists (select from public.background_jobs b where b.id = n.job_id)
                returning id
            )
            select coalesce(array_agg(w.id), '{}') into inserted from written w;
            if cardinality(inserted) < cardinality(p_named) then
                refused := array(
                    select n.job || '{"reason": "a trigger or rule of the application kept it from being queued"}'
                    from unnest(p_named) n (job)
                    where not exists (select from public.background_jobs b where b.id = (n.job ->> 'job_id')::uuid)
                );
            end if;
            if p_check then
                perform priorityd.check_deferred();
            end if;
            return;
        exception
            when others or assert_failure then
                get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
        end;
        inserted := '{}';
        refused := '{}';
        perform priorityd.wait_no_more(v_state);
        if cardinality(p_named) > 1 then
            v_first := priorityd.insert_job_rows(p_named[:v_half], p_check);
            v_second := priorityd.insert_job_rows(p_named[v_half + 1:], p_check);
            inserted := v_first.inserted || v_second.inserted;
            refused := v_first.refused || v_second.refused;
        elsif not exists (select from public.background_jobs b where b.id = (p_named[1] ->> 'job_id')::uuid) then
            -- Otherwise the same job has been queued at the same time.
            refused := array[p_named[1] || jsonb_build_object('reason', format('%s (%s)', left(v_message, 300), v_state))];
        end if;
    end
    $$;

    -- The transactions whose hints may not have been followed yet, as ranges.
    create or replace function priorityd.unfollowed_transactions(p_queue priorityd.release_state)
    returns table (first xid8, last xid8) language plpgsql stable as $$
    declare
        c_last constant xid8 := '18446744073709551615';
    begin
        -- After a restore, transaction numbers start over.
        if (pg_snapshot_xmax(p_queue.hints_followed) <= pg_snapshot_xmax(pg_current_snapshot())) is not true then
            return query select '0'::xid8, c_last;
            return;
        end if;
        return query
            select pg_snapshot_xmax(p_queue.hints_followed), c_last
            union all
            select x.id, x.id
            from (
                select o.id from pg_snapshot_xip(p_queue.hints_followed) o (id)
                union
                select p_queue.followed_by
            ) x
            where x.id < pg_snapshot_xmax(p_queue.hints_followed);
    end
    $$;

    -- Leaves hints at the lanes of these (job type, repository) pairs (null: all types), and returns how many. An existing
    -- hint is not repeated but locked, so that it is followed once more after this transaction. To be called after writing
    -- what the hints are about.
    create or replace function priorityd.leave_job_hints(p_job_types text[], p_repository_ids uuid[])
    returns bigint language plpgsql as $$
    declare
        -- At other isolation levels a transaction may not see that jobs are released by now, and can't lock a row that has
        -- changed since it began.
        c_up_to_date constant boolean := current_setting('transaction_isolation') like 'read %';
        -- A released_until further ahead was written before the clock was set back.
        c_longest constant interval := '10 min';
        v_queue priorityd.release_state;
        v_firsts xid8[];
        v_lasts xid8[];
        v_left bigint;
    begin
        select q.* into v_queue from priorityd.release_state q;
        if c_up_to_date and v_queue.released_until not between clock_timestamp() and clock_timestamp() + c_longest then
            return 0;
        end if;
        select array_agg(r.first), array_agg(r.last) into v_firsts, v_lasts
        from priorityd.unfollowed_transactions(v_queue) r;
        with wanted as materialized (
            select distinct u.job_type, u.repository_id from unnest(p_job_types, p_repository_ids) u (job_type, repository_id)
            where u.repository_id is not null
        ),
        held as materialized (
            select h.job_type, h.repository_id
            from wanted w
            cross join unnest(v_firsts, v_lasts) r (first, last)
            join priorityd.job_hints h on h.repository_id = w.repository_id and h.left_by between r.first and r.last
                and (h.job_type is null or h.job_type = w.job_type)
            where c_up_to_date
            for key share of h skip locked
        ),
        hinted as (
            insert into priorityd.job_hints (job_type, repository_id)
            select w.job_type, w.repository_id from wanted w
            where not exists (
                select from held h where h.repository_id = w.repository_id and (h.job_type is null or h.job_type = w.job_type)
            )
            returning 1
        )
        select count(*) into v_left from hinted;
        return v_left;
    end
    $$;

    -- Adds those of these named jobs that are new to the ordered ones, and leaves hints at their lanes.
    create or replace function priorityd.put_in_order(p_named jsonb[], p_new uuid[])
    returns void language plpgsql as $$
    declare
        v_now constant timestamptz := clock_timestamp();
        v_job_types text[];
        v_repository_ids uuid[];
    begin
        with ordered as (
            insert into priorityd.ordered_jobs (job_id, job_type, repository_id, queued_at)
            select i.id, n.job ->> 'job_type', (n.job ->> 'repository_id')::uuid, v_now
            from unnest(p_named) with ordinality n (job, position)
            join unnest(p_new) i (id) on i.id = (n.job ->> 'job_id')::uuid
            order by n.position
            returning job_type, repository_id
        )
        select array_agg(o.job_type), array_agg(o.repository_id) into v_job_types, v_repository_ids from ordered o;
        perform priorityd.leave_job_hints(v_job_types, v_repository_ids);
    end
    $$;

    -- These named jobs with the current priorities of their repositories.
    create or replace function priorityd.describe_jobs(p_named jsonb[])
    returns jsonb[] language sql stable as $$
        select array(
            select jsonb_build_object(
                'job_id', n.job -> 'job_id',
                'repository_id', n.job -> 'repository_id',
                'priority', priorityd.job_priority(t.priority, t.is_workspace_repo),
                'tracked', case when t.repository_id is not null then to_jsonb(t) - 'repository_id' end
            )
            from unnest(p_named) with ordinality n (job, position)
            left join priorityd.tracked_rows_of(
                array(select (w.job ->> 'repository_id')::uuid from unnest(p_named) w (job))
            ) t on t.repository_id = (n.job ->> 'repository_id')::uuid
            order by n.position
        )
    $$;

    -- Queues jobs in order, for any application:
    --
    --     select queue_repository_jobs('[{"repository_id": "...", "repository_name": "acme/web", "data": {...},
    --         "job_id": "..."}, ...]', 'recent-prs')
    --
    -- Only repository_id is required. data has fields of the future event. A job's own job_type overrides p_job_type. A call
    -- repeated with the same job_ids queues nothing twice; without them, repeats can't be recognised. Each job gets a row
    -- in background_jobs, and its event has that row's id as jobId: in this row its worker must report that it has started
    -- (status 'processing', started_at) and that it is done ('completed' or 'failed', with the time).
    --
    -- A job that is malformed, of an unknown repository, or refused by the application's own triggers and checks is listed
    -- in `refused`, with its position and the reason; the others are queued. `jobs` lists these in order, with the current
    -- priorities of their repositories.
    create or replace function public.queue_repository_jobs(p_jobs jsonb, p_job_type text default null)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '20s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        -- Ids are assigned once, here, because they are read several times below.
        v_named jsonb[] := priorityd.name_jobs(p_jobs, p_job_type);
        v_unknown uuid[];
        v_once jsonb[];
        v_refused jsonb[];
        v_written record;
    begin
        perform priorityd.check_job_table();
        v_unknown := priorityd.repositories_unknown_to_jobs(
            array(select (n.job ->> 'repository_id')::uuid from unnest(v_named) n (job) where not n.job ? 'reason')
        );
        v_named := array(
            select case
                when not n.job ? 'reason' and (n.job ->> 'repository_id')::uuid = any (v_unknown)
                then n.job || '{"reason": "there is no such repository"}'
                else n.job
            end
            from unnest(v_named) with ordinality n (job, position)
            order by n.position
        );
        v_once := array(
            select f.job
            from (
                select distinct on (n.job -> 'job_id') n.job, n.position from unnest(v_named) with ordinality n (job, position)
                where not n.job ? 'reason'
                order by n.job -> 'job_id', n.position
            ) f
            order by f.position
        );
        v_written := priorityd.insert_job_rows(v_once, priorityd.deferred_are_met());
        perform priorityd.put_in_order(v_once, v_written.inserted);
        v_refused := v_written.refused || array(select n.job from unnest(v_named) n (job) where n.job ? 'reason');
        v_named := array(
            select n.job from unnest(v_named) with ordinality n (job, position)
            where not n.job ? 'reason'
                and not exists (select from unnest(v_written.refused) r (job) where r.job -> 'job_id' = n.job -> 'job_id')
            order by n.position
        );
        return jsonb_build_object(
            'queued', cardinality(v_written.inserted),
            'jobs', priorityd.describe_jobs(v_named),
            'refused', array(
                select r.job - '{job_type,payload}'::text[] from unnest(v_refused) r (job)
                order by (r.job ->> 'position')::integer
            )
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
