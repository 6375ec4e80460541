-- Ordered jobs: jobs that wait here instead of in Inngest, and are released in a strict order.
--
-- The order, within one job type: the highest *current* priority of the repository first; within a priority the
-- workspaces take turns; within a turn the oldest job first. A job of a lower priority that has waited for too long
-- is promoted (see choose_job_priority). At most so many jobs of a type are in flight at a time.
--
-- How that costs O(log n) whatever is waiting. Priorities belong to repositories, not to jobs, and change; so no job
-- carries one. The jobs of one type and one repository form a *lane*, in which the oldest is the head. A lane has a
-- priority, a lane that is high stands in line for each workspace that holds its repository, and an upgrade moves
-- lanes, however many jobs are in them. To release is to take the head of the first lane, and to place that lane anew.
--
-- How lanes stay true. A lane is placed by one function, from the rows as they are: waiting jobs, tracked row,
-- memberships. *Hints* say for which repositories that is to be done: whoever queues or cancels jobs leaves some, and
-- so does every change on record in repository_priority_changes, in the transaction that makes it. A release
-- follows all hints before it takes anything. What went past us (somebody writing a priority by hand) is found by
-- check_job_lanes, and a lane that is too high by the release itself, which reads the tracked row of what it takes.
--
-- Who waits for whom. One release at a time: it holds the only row of priorityd.release_state, alone writes lanes
-- and turns, and is a matter of milliseconds; another that comes meanwhile goes away at once. Queueing jobs and
-- changing priorities only ever insert; they never wait for a release. The application's tables get no trigger, no
-- column and no index: a large background_jobs stays as it is.
--
-- May be left out, these four files together.

do $tables$
declare
    v_table regclass;
begin
    if not priorityd.start_unit('20250103000900 tables', 1, '{20250103000700 tables}') then
        return;
    end if;

    -- The application's table of jobs: taken as it is found; made, in the shape that applications give it, where there
    -- is none.
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
        -- One row. Whoever has it locked releases jobs. turns counts what was ever released.
        create table priorityd.release_state (
            only_row boolean primary key default true constraint release_state_one_row check (only_row),
            in_use boolean not null default false,
            turns bigint not null default 0
        );
        insert into priorityd.release_state default values;

        -- The ordered jobs that are not over: waiting (released_at is null) or in flight. The job itself is in
        -- background_jobs; no foreign key, because the application's deletes must not pay for it.
        -- Until it is sent, a release is no more than a claim: lease_until is near. After that it is far.
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
            lease_until timestamptz
        );
        create index ordered_jobs_waiting
        on priorityd.ordered_jobs (job_type, repository_id, queued_at, number, job_id) where released_at is null;
        create index ordered_jobs_in_flight
        on priorityd.ordered_jobs (job_type) where released_at is not null;

        -- The lanes, each once for every workspace in whose line it stands. In no workspace: the workspace ''.
        create table priorityd.job_lanes (
            job_type text not null,
            repository_id uuid not null,
            workspace_id text collate "C" not null,
            priority text not null,
            head_queued_at timestamptz not null,
            head_number bigint not null,
            head_job_id uuid not null,
            primary key (job_type, repository_id, workspace_id)
        );
        create index job_lanes_line
        on priorityd.job_lanes (job_type, priority, workspace_id, head_queued_at, head_number);

        -- When a workspace last had its turn (0: never), of those that had or wait for one. Active ones may be without a
        -- lane; whoever finds that out says so.
        create table priorityd.job_turns (
            job_type text not null,
            workspace_id text collate "C" not null,
            served bigint not null default 0,
            active boolean not null default true,
            primary key (job_type, workspace_id)
        );
        create index job_turns_next on priorityd.job_turns (job_type, served, workspace_id) where active;

        -- Repositories whose lanes are to be placed anew; all their lanes where job_type is null.
        create table priorityd.job_hints (
            id bigint generated always as identity primary key,
            job_type text,
            repository_id uuid not null
        );

        -- These are queues: their dead rows are in the way of the next one, and only few are alive.
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
    if not priorityd.start_unit(
        '20250103000900 functions', 1, '{20250103000700 functions, 20250103000900 tables}', '{queue_repository_jobs}'
    ) then
        return;
    end if;

    -- Those of these repositories that background_jobs can't name, because a foreign key of it does not know them.
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
        -- Where the caller may not see them all, the foreign key itself has to tell.
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

    -- These jobs with what queueing adds to each: its position, an id, its type and its payload. Raises if one of them is
    -- malformed.
    create or replace function priorityd.name_jobs(p_jobs jsonb, p_job_type text)
    returns jsonb language plpgsql as $$
    declare
        v_bad record;
        v_type text;
    begin
        perform priorityd.check_job_list(p_jobs);
        select e.position, priorityd.explain_refused_job(e.job) as reason into v_bad
        from jsonb_array_elements(p_jobs) with ordinality e (job, position)
        where priorityd.explain_refused_job(e.job) is not null
        order by e.position
        limit 1;
        if v_bad.reason is not null then
            raise exception 'job % %', v_bad.position, v_bad.reason using errcode = 'invalid_parameter_value';
        end if;
        for v_type in
            select distinct coalesce(e.job ->> 'job_type', p_job_type) from jsonb_array_elements(p_jobs) e (job)
        loop
            perform priorityd.check_job_type(v_type);
        end loop;
        return (
            select coalesce(
                jsonb_agg(
                    jsonb_build_object(
                        'position', e.position,
                        'job_id', coalesce((e.job ->> 'job_id')::uuid, gen_random_uuid()),
                        'job_type', coalesce(e.job ->> 'job_type', p_job_type),
                        'repository_id', (e.job ->> 'repository_id')::uuid,
                        'payload', priorityd.job_data(e.job)
                    )
                    order by e.position
                ),
                '[]'
            )
            from jsonb_array_elements(p_jobs) with ordinality e (job, position)
        );
    end
    $$;

    -- Queues these named jobs, but for those that are queued already; how many.
    create or replace function priorityd.insert_jobs(p_named jsonb)
    returns bigint language plpgsql as $$
    declare
        v_now timestamptz := clock_timestamp();
        v_queued bigint;
    begin
        with named as (
            select distinct on (r.job_id) r.*
            from jsonb_to_recordset(p_named) r (
                position integer, job_id uuid, job_type text, repository_id uuid, payload jsonb
            )
            order by r.job_id, r.position
        ),
        inserted as (
            insert into public.background_jobs (id, type, payload, status, repository_id, created_at)
            select n.job_id, n.job_type, n.payload || jsonb_build_object('jobId', n.job_id), 'queued', n.repository_id, v_now
            from named n
            on conflict (id) do nothing
            returning id
        ),
        ordered as (
            insert into priorityd.ordered_jobs (job_id, job_type, repository_id, queued_at)
            select n.job_id, n.job_type, n.repository_id, v_now
            from named n
            join inserted i on i.id = n.job_id
            order by n.position
            returning job_type, repository_id
        ),
        hinted as (
            insert into priorityd.job_hints (job_type, repository_id)
            select distinct o.job_type, o.repository_id from ordered o
        )
        select count(*) into v_queued from inserted;
        return v_queued;
    end
    $$;

    -- These named jobs with their repositories' priorities as they are now.
    create or replace function priorityd.describe_jobs(p_named jsonb)
    returns jsonb language sql stable as $$
        select coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'job_id', n.job_id,
                    'repository_id', n.repository_id,
                    'priority', priorityd.job_priority(tr.priority::text, tr.is_workspace_repo),
                    'tracked', case
                        when tr.found then jsonb_build_object(
                            'priority', tr.priority, 'is_workspace_repo', tr.is_workspace_repo,
                            'workspace_count', tr.workspace_count
                        )
                    end
                )
                order by n.position
            ),
            '[]'
        )
        from jsonb_to_recordset(p_named) n (position integer, job_id uuid, repository_id uuid)
        left join lateral (
            select t.priority, t.is_workspace_repo, t.workspace_count, true as found
            from public.tracked_repositories t
            where t.repository_id = n.repository_id
            order by t.id
            limit 1
        ) tr on true
    $$;

    -- Queues jobs in order, for any application:
    --
    --     select queue_repository_jobs('[{"repository_id": "…", "repository_name": "acme/web", "data": {…},
    --         "job_id": "…"}, …]', 'recent-prs')
    --
    -- Only repository_id is needed. data are fields of the event to be. A job_type beside them wins over p_job_type. Called
    -- again with the same job_ids it queues nothing twice; without them it can't tell. Each job gets a row in
    -- background_jobs, and the event the field jobId: by that row its worker has to say that it is at work (status
    -- 'processing', started_at) and that it is done ('completed' or 'failed', with the time).
    --
    -- All are queued or, if one of them is malformed, none; but those of unknown repositories are left out, and listed
    -- in `refused`. `jobs` has the others in their order, with their repositories' priorities as they are now.
    create or replace function public.queue_repository_jobs(p_jobs jsonb, p_job_type text default null)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '20s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        -- Ids are given out here, once, because they are read several times below.
        v_named constant jsonb := priorityd.name_jobs(p_jobs, p_job_type);
        v_unknown constant uuid[] := priorityd.repositories_unknown_to_jobs(
            array(select (n.job ->> 'repository_id')::uuid from jsonb_array_elements(v_named) n (job))
        );
        v_known jsonb;
        v_refused jsonb;
    begin
        if not exists (select from priorityd.release_state q where q.in_use) then
            update priorityd.release_state q set in_use = true where q.only_row;
        end if;
        select
            coalesce(jsonb_agg(n.job order by n.position) filter (where not u.unknown), '[]'),
            coalesce(
                jsonb_agg(
                    jsonb_build_object(
                        'job_id', n.job -> 'job_id', 'repository_id', n.job -> 'repository_id',
                        'reason', 'there is no such repository'
                    )
                    order by n.position
                ) filter (where u.unknown),
                '[]'
            )
        into v_known, v_refused
        from jsonb_array_elements(v_named) with ordinality n (job, position)
        cross join lateral (select (n.job ->> 'repository_id')::uuid = any (v_unknown) as unknown) u;
        return jsonb_build_object(
            'queued', priorityd.insert_jobs(v_known), 'jobs', priorityd.describe_jobs(v_known), 'refused', v_refused
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
