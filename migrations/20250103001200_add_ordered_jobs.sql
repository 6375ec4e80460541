-- Ordered jobs: jobs that wait here instead of in Inngest, and are released in a strict order.
--
-- The order, within one job type: the highest *current* priority of the repository first; within a priority the
-- workspaces take turns; within a turn the oldest job first. A job of a lower priority that has waited for too long
-- is promoted (see choose_job_priority). At most so many jobs of a type are in flight at a time.
--
-- Cost. A release costs O(log n), however many jobs wait. Priorities belong to repositories, not to jobs, and they
-- change, so jobs carry none. The jobs of one type and one repository form a *lane*, whose oldest job is its head. A lane
-- has a priority; a high lane stands in line for each workspace that holds its repository; and an upgrade moves lanes,
-- however many jobs they have. A release takes the head of the first lane, and places that lane again.
--
-- Keeping lanes correct. One function places a lane from the current rows: waiting jobs, tracked row, memberships. *Hints*
-- say for which repositories it must do so: queueing or cancelling jobs leaves hints, and so does every change recorded in
-- repository_priority_changes, in its own transaction. A release follows all hints before it takes anything. Changes
-- without a hint (a membership moved straight to another workspace, a priority written by hand) are found by
-- check_job_lanes; a lane that is too high is also found by the release itself, which reads the tracked row of what it
-- takes.
--
-- The number of hints. Hints are left only while some daemon releases jobs: each release declares this for some minutes in
-- advance (released_until), and the first one after a pause compares all lanes with the waiting jobs (renew_releases).
-- There is no second hint for the same type and repository: instead, the transaction that would leave one keeps the
-- existing one locked until it ends; a release follows a locked hint, but leaves it in place for the next release. So
-- nobody waits, and only transactions that run at the same moment may leave a hint each.
--
-- Dead rows. A release never reads them. A forgotten transaction keeps all of them in the indexes, so every search begins
-- at a mark below which there is nothing, jobs in flight are found by their ids, and hints by the transactions that left
-- them.
--
-- Locks. There is one release at a time: it holds the only row of priorityd.release_state, alone writes lanes and turns,
-- and takes milliseconds; another one that starts meanwhile returns at once. Queueing jobs and changing priorities only
-- insert, so they never wait for a release. The application's tables get no trigger, no column and no index: a large
-- background_jobs stays as it is.
--
-- The files of ordered jobs may be left out, all together.

do $tables$
declare
    v_table regclass;
begin
    if not priorityd.start_unit('20250103001200 tables', 1, '{20250103001000 tables}') then
        return;
    end if;

    -- The application's table of jobs. An existing one is used as it is; otherwise it is created in its usual form.
    if to_regclass('public.background_jobs') is null then
        create table public.background_jobs (
            id uuid primary key default gen_random_uuid(),
            type text,
            payload jsonb default '{}',
            status text not null default 'queued' constraint background_jobs_status_check
                check (status in ('queued', 'processing', 'completed', 'failed', 'cancelled')),
            repository_id uuid,
            error text,
            created_at timestamptz not null default now(),
            started_at timestamptz,
            completed_at timestamptz,
            failed_at timestamptz
        );
        alter table public.background_jobs enable row level security;
        insert into priorityd.created values ('table public.background_jobs');
    end if;

    if to_regclass('priorityd.release_state') is null then
        -- One row; the session that holds its lock releases jobs. turns counts all releases so far. Every hint visible to
        -- hints_followed has been followed, except those left by the transaction followed_by itself. Hints are left until
        -- released_until; the transactions in unhinted began while none were left (null: all open transactions).
        create table priorityd.release_state (
            only_row boolean primary key default true constraint release_state_one_row check (only_row),
            turns bigint not null default 0,
            hints_followed pg_snapshot,
            followed_by xid8,
            released_until timestamptz not null default '-infinity',
            unhinted xid8[]
        );
        insert into priorityd.release_state default values;

        -- The ordered jobs that have not ended: in flight (released_at is not null), set aside (aside_until is not null) or
        -- waiting in their lanes. The job itself is in background_jobs; there is no foreign key, which would slow down the
        -- application's deletes.
        -- Until its job is sent, a release is only a claim, with a near lease_until; after that the lease is long. event_id
        -- is Inngest's own id of the first event that it accepted: a repeat starts nothing, so its id leads to no run.
        -- Set aside are lost jobs, whose lease expired `losses` times without a report, and jobs whose row the application
        -- did not let us write.
        create table priorityd.ordered_jobs (
            job_id uuid primary key,
            job_type text not null,
            repository_id uuid not null,
            queued_at timestamptz not null,
            number bigint generated always as identity,
            releases integer not null default 0,
            released_at timestamptz,
            daemon_id uuid,
            released_priority text,
            sent_at timestamptz,
            lease_until timestamptz,
            event_id text,
            losses integer not null default 0,
            aside_until timestamptz
        );
        create index ordered_jobs_waiting
        on priorityd.ordered_jobs (job_type, repository_id, queued_at, number, job_id)
        where released_at is null and aside_until is null;
        create index ordered_jobs_aside
        on priorityd.ordered_jobs (job_type, aside_until) where aside_until is not null;

        -- The lanes, each with a row for every workspace in whose line it stands; the workspace is '' if there is none.
        -- The keys here and below include what changes with each release: otherwise each new version of a row would be
        -- compared with all dead ones. Only the holder of the release's row writes, so that there is one row for each lane
        -- and line, and one turn for each workspace, without further constraints.
        create table priorityd.job_lanes (
            job_type text not null,
            repository_id uuid not null,
            workspace_id text collate "C" not null,
            priority text not null,
            head_queued_at timestamptz not null,
            head_number bigint not null,
            head_job_id uuid not null,
            primary key (job_type, repository_id, head_number, workspace_id)
        );
        create index job_lanes_line
        on priorityd.job_lanes (job_type, priority, workspace_id, head_queued_at, head_number);

        -- When each workspace that had or waits for a turn last had one (0: never). An active one may have no lane; the
        -- release that notices this records it. No lane in its line has a head older than line_mark.
        create table priorityd.job_turns (
            job_type text not null,
            workspace_id text collate "C" not null,
            served bigint not null default 0,
            active boolean not null default true,
            line_mark timestamptz not null default '-infinity',
            primary key (job_type, workspace_id, served)
        );
        create index job_turns_next on priorityd.job_turns (job_type, served, workspace_id) where active;

        -- Repositories whose lanes must be placed again; all of their lanes if job_type is null.
        create table priorityd.job_hints (
            id bigint generated always as identity primary key,
            job_type text,
            repository_id uuid not null,
            left_by xid8 not null default pg_current_xact_id()
        );
        create index job_hints_left_by on priorityd.job_hints (left_by, id);
        create index job_hints_repository on priorityd.job_hints (repository_id, left_by);

        -- The terms of a release: the parameters of release_ordered_jobs, which explains them.
        create type priorityd.release_terms as (
            daemon_id uuid,
            in_flight integer,
            promote_after_seconds double precision,
            claim_seconds double precision,
            lease_seconds double precision,
            most_leases integer
        );

        -- These tables are queues: they have few live rows, and dead ones slow down the next release.
        for v_table in
            select c.oid::regclass from pg_class c
            where c.relnamespace = 'priorityd'::regnamespace and c.relkind = 'r'
                and c.relname in ('job_types', 'release_state', 'ordered_jobs', 'job_lanes', 'job_turns', 'job_hints')
        loop
            execute format(
                'alter table %s set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000)', v_table);
        end loop;
    end if;
end
$tables$;

do $functions$
begin
    if not priorityd.start_unit('20250103001200 functions', 1, '{20250103001000 functions, 20250103001200 tables}') then
        return;
    end if;

    -- The ways to record in background_jobs that a job has ended with this status, each as the SET list of an UPDATE, the
    -- plainest first: some tables require a start time with an end time, or an end time with every end, and some have no
    -- status `cancelled`.
    create or replace function priorityd.ways_to_end(p_status text)
    returns text[] language plpgsql stable as $$
    declare
        c_sets constant jsonb := jsonb_build_object(
            'started_at', 'started_at = coalesce(b.started_at, clock_timestamp())',
            'completed_at', 'completed_at = coalesce(b.completed_at, clock_timestamp())',
            'failed_at', 'failed_at = clock_timestamp()',
            'error', 'error = left(coalesce(u.reason, b.error%s), %s)'
        );
        v_ends constant text := case p_status when 'failed' then 'failed_at' else 'completed_at' end;
        v_columns jsonb;
        v_ways text[];
    begin
        select jsonb_object_agg(
                a.attname, format(
                    c_sets ->> a.attname::text, '::text', case when a.atttypmod > 4 then a.atttypmod - 4 else 1000 end
                )
            )
        into v_columns
        from pg_attribute a
        join pg_type t on t.oid = a.atttypid
        where a.attrelid = 'public.background_jobs'::regclass and not a.attisdropped and c_sets ? a.attname::text
            and (a.attname <> 'error' or t.typcategory = 'S');
        v_ways := array(
            select concat_ws(
                ', ', format('status = %L', p_status), v_columns ->> 'error',
                (select string_agg(v_columns ->> c.name, ', ') from unnest(w.columns) c (name))
            )
            from (
                values (1, array[v_ends]), (2, array[v_ends, 'started_at']),
                    (3, array['completed_at', 'started_at', 'failed_at'])
            ) w (n, columns)
            where w.n < 3 or p_status = 'failed'
            order by w.n
        );
        return case p_status when 'cancelled' then v_ways || priorityd.ways_to_end('failed') else v_ways end;
    end
    $$;

    -- Locks these rows of background_jobs; returns those that nobody else has locked, including ids without a row. A single
    -- row is waited for. Several are not: while waiting for one of them this would keep the others locked, which could end
    -- in a deadlock.
    create or replace function priorityd.lock_job_rows(p_job_ids uuid[])
    returns uuid[] language plpgsql as $$
    declare
        v_locked uuid[];
    begin
        if cardinality(p_job_ids) = 1 then
            perform from public.background_jobs b where b.id = p_job_ids[1] for no key update;
            return p_job_ids;
        end if;
        v_locked := array(
            select b.id from public.background_jobs b where b.id = any (p_job_ids) order by b.id for no key update skip locked
        );
        return v_locked || array(
            select u.id from unnest(p_job_ids) u (id)
            where not exists (select from public.background_jobs b where b.id = u.id)
        );
    end
    $$;

    -- Those of these jobs that should have ended and have not: a trigger or rule kept them as they were.
    create or replace function priorityd.jobs_kept(p_job_ids uuid[])
    returns jsonb[] language plpgsql stable as $$
    begin
        return array(
            select jsonb_build_object('job_id', b.id, 'reason', 'a trigger or rule of the application kept it as it was')
            from public.background_jobs b
            where b.id = any (p_job_ids) and b.status::text in ('queued', 'processing')
            order by b.id
        );
    end
    $$;

    -- Ends those of these jobs that have not ended; `ended` lists them. A job that the application's triggers or checks
    -- refuse in every way is found as in insert_job_rows, and listed in `refused` with the reason.
    create or replace function priorityd.end_jobs(
        p_job_ids uuid[], p_reasons text[], p_status text, out ended uuid[], out refused jsonb[]
    )
    language plpgsql as $$
    declare
        v_half constant integer := cardinality(p_job_ids) / 2;
        v_way text;
        v_first record;
        v_second record;
        v_state text;
        v_message text;
        v_constraint text;
    begin
        ended := '{}';
        refused := '{}';
        if cardinality(p_job_ids) = 0 then
            return;
        end if;
        foreach v_way in array priorityd.ways_to_end(p_status) loop
            begin
                execute format(
                    'with e as (
                         update public.background_jobs b set %s from unnest($1, $2) u (id, reason)
                         where b.id = u.id and b.status::text in (''queued'', ''processing'') returning b.id
                     )
                     select coalesce(array_agg(e.id), ''{}'') from e', v_way)
                into ended using p_job_ids, p_reasons;
                perform priorityd.check_deferred();
                refused := priorityd.jobs_kept(p_job_ids);
                ended := array(
                    select u.id from unnest(ended) u (id)
                    where u.id <> all (array(select (r.job ->> 'job_id')::uuid from unnest(refused) r (job)))
                );
                return;
            exception
                when others or assert_failure then
                    get stacked diagnostics
                        v_state = returned_sqlstate, v_message = message_text, v_constraint = constraint_name;
            end;
            -- Try the next way only if the table refuses a status or a time; what a trigger refuses is not tried again.
            exit when v_state not in ('22P02', '23502', '23514') or (v_state = '23514' and v_constraint = '');
        end loop;
        ended := '{}';
        perform priorityd.wait_no_more(v_state);
        if cardinality(p_job_ids) > 1 then
            v_first := priorityd.end_jobs(p_job_ids[:v_half], p_reasons[:v_half], p_status);
            v_second := priorityd.end_jobs(p_job_ids[v_half + 1:], p_reasons[v_half + 1:], p_status);
            ended := v_first.ended || v_second.ended;
            refused := v_first.refused || v_second.refused;
            return;
        end if;
        refused := array[
            jsonb_build_object('job_id', p_job_ids[1], 'reason', format('%s (%s)', left(v_message, 300), v_state))
        ];
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
