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
-- Who waits for whom. One release at a time: it holds the only row of workspace_priority_job_queue, alone writes lanes
-- and turns, and is a matter of milliseconds; another that comes meanwhile goes away at once. Queueing jobs and
-- changing priorities only ever insert; they never wait for a release. The application's tables get no trigger, no
-- column and no index: a large background_jobs stays as it is.
--
-- Safe to apply again.

do $$
begin
    perform set_config('lock_timeout', '15s', true);
end
$$;

insert into public.workspace_priority_migrations (version, name)
values ('20250103000700', '20250103000700_add_workspace_priority_ordered_jobs.sql')
on conflict (version) do nothing;

-- ---------------------------------------------------------------------------------------------------------
-- The application's table of jobs
-- ---------------------------------------------------------------------------------------------------------

-- Taken as it is found; made, in the shape that applications give it, where there is none.
do $$
begin
    if to_regclass('public.background_jobs') is not null then
        return;
    end if;
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
    -- What job telemetry reads by.
    create index idx_background_jobs_finished on public.background_jobs (greatest(completed_at, failed_at), id)
    where greatest(completed_at, failed_at) is not null;
    create index idx_background_jobs_started on public.background_jobs (started_at) where started_at is not null;
    create index idx_background_jobs_queued on public.background_jobs (created_at) where status = 'queued';
    update public.workspace_priority_migrations
    set created = created || 'table background_jobs'::text where version = '20250103000700';
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Tables
-- ---------------------------------------------------------------------------------------------------------

-- One row. Whoever has it locked releases jobs. turns counts what was ever released.
create table if not exists public.workspace_priority_job_queue (
    only_row boolean primary key default true constraint workspace_priority_job_queue_one_row check (only_row),
    in_use boolean not null default false,
    turns bigint not null default 0
);
comment on table public.workspace_priority_job_queue is
'The lock under which ordered jobs are released, and how many ever were.';
insert into public.workspace_priority_job_queue default values on conflict (only_row) do nothing;

-- What is remembered of each job type: whose turn it was last, and whether the last release was a promotion.
create table if not exists public.workspace_priority_job_types (
    job_type text primary key constraint workspace_priority_job_types_check check (
        job_type in (
            'historical-pr-sync', 'recent-prs', 'pr-details', 'reviews', 'comments', 'repository-issues',
            'repository-discussions'
        )
    ),
    served bigint not null default 0,
    promoted_last boolean not null default false
);
comment on table public.workspace_priority_job_types is 'The types of ordered jobs.';
insert into public.workspace_priority_job_types (job_type)
values ('historical-pr-sync'), ('recent-prs'), ('pr-details'), ('reviews'), ('comments'), ('repository-issues'),
    ('repository-discussions')
on conflict (job_type) do nothing;

-- The ordered jobs that are not over: waiting (released_at is null) or in flight. The job itself is in
-- background_jobs; no foreign key, because the application's deletes must not pay for it.
-- Until it is sent, a release is no more than a claim: lease_until is near. After that it is far.
create table if not exists public.workspace_priority_ordered_jobs (
    job_id uuid primary key,
    job_type text not null,
    repository_id uuid not null,
    queued_at timestamptz not null,
    number bigint generated always as identity,
    releases integer not null default 0,
    released_at timestamptz,
    released_by uuid,
    released_priority text,
    sent_at timestamptz,
    lease_until timestamptz
);
comment on table public.workspace_priority_ordered_jobs is
'Jobs that are released to Inngest in order: those that wait and those in flight.';

create index if not exists idx_workspace_priority_ordered_jobs_waiting
on public.workspace_priority_ordered_jobs (job_type, repository_id, queued_at, number, job_id)
where released_at is null;
create index if not exists idx_workspace_priority_ordered_jobs_in_flight
on public.workspace_priority_ordered_jobs (job_type) where released_at is not null;

-- The lanes, each once for every workspace in whose line it stands. In no workspace: the workspace of zeros.
create table if not exists public.workspace_priority_job_lanes (
    job_type text not null,
    repository_id uuid not null,
    workspace_id uuid not null,
    priority text not null,
    head_queued_at timestamptz not null,
    head_number bigint not null,
    head_job_id uuid not null,
    primary key (job_type, repository_id, workspace_id)
);
comment on table public.workspace_priority_job_lanes is
'The waiting jobs of one type and repository, by the oldest of them: what a release chooses from.';

create index if not exists idx_workspace_priority_job_lanes_line
on public.workspace_priority_job_lanes (job_type, priority, workspace_id, head_queued_at, head_number);

-- When a workspace last had its turn (0: never), of those that had or wait for one. Active ones may be without a
-- lane; whoever finds that out says so.
create table if not exists public.workspace_priority_job_turns (
    job_type text not null,
    workspace_id uuid not null,
    served bigint not null default 0,
    active boolean not null default true,
    primary key (job_type, workspace_id)
);
comment on table public.workspace_priority_job_turns is
'The workspaces with high jobs, and when each last had its turn.';

create index if not exists idx_workspace_priority_job_turns_next
on public.workspace_priority_job_turns (job_type, served, workspace_id) where active;

-- Repositories whose lanes are to be placed anew; all their lanes where job_type is null.
create table if not exists public.workspace_priority_job_hints (
    id bigint generated always as identity primary key,
    job_type text,
    repository_id uuid not null
);
comment on table public.workspace_priority_job_hints is
'Repositories whose place in the order may have changed since the last release.';

-- These are queues: their dead rows are in the way of the next one, and only few are alive.
do $$
declare
    v_table text;
    v_role text;
begin
    foreach v_table in array array[
        'workspace_priority_job_queue', 'workspace_priority_job_types', 'workspace_priority_ordered_jobs',
        'workspace_priority_job_lanes', 'workspace_priority_job_turns', 'workspace_priority_job_hints'
    ] loop
        execute format('alter table public.%I enable row level security', v_table);
        execute format(
            'alter table public.%I set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000)',
            v_table);
        execute format('revoke all on public.%I from public', v_table);
        for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated', 'service_role') loop
            execute format('revoke all on public.%I from %I', v_table, v_role);
        end loop;
        if exists (select from pg_roles where rolname = 'service_role') then
            execute format('grant select, insert, update, delete on public.%I to service_role', v_table);
        end if;
    end loop;
    for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated', 'service_role') loop
        execute format(
            'revoke all on sequence public.workspace_priority_ordered_jobs_number_seq,
                 public.workspace_priority_job_hints_id_seq from %I', v_role);
    end loop;
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- The policy
-- ---------------------------------------------------------------------------------------------------------

-- From which priority the next job of a type is taken, and whether that is a promotion. The same as
-- core/release_policy.py, where the reasons are. Arguments: whether a high job waits, for how long the oldest
-- medium and low ones have (null: none does), and whether the last release of this type was a promotion.
-- `priority` is null when nothing waits.
create or replace function public.choose_job_priority(
    p_high_waits boolean,
    p_medium_seconds double precision,
    p_low_seconds double precision,
    p_promoted_last boolean,
    p_promote_after_seconds double precision,
    out priority text,
    out promoted boolean
)
language plpgsql
immutable
set search_path = ''
as $$
declare
    v_first text := case
        when p_high_waits then 'high' when p_medium_seconds is not null then 'medium'
        when p_low_seconds is not null then 'low'
    end;
    v_longest text := case
        when p_low_seconds > p_medium_seconds or p_medium_seconds is null then 'low' else 'medium'
    end;
begin
    promoted := v_longest <> v_first and not p_promoted_last
        and coalesce(greatest(p_medium_seconds, p_low_seconds) >= p_promote_after_seconds, false);
    priority := case when promoted then v_longest else v_first end;
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Lanes
-- ---------------------------------------------------------------------------------------------------------

-- A change of priority or flag moves the lanes of its repository. A trigger, but on our own table: whatever writes
-- the trail leaves the hint, and the application's tables are left alone.
create or replace function public.hint_at_job_lanes()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    -- Where nobody has ever used ordered jobs, nobody would take the hints away.
    if exists (select from public.workspace_priority_job_queue q where q.in_use) then
        insert into public.workspace_priority_job_hints (repository_id)
        select distinct c.repository_id from changes c where c.repository_id is not null;
    end if;
    return null;
end
$$;

drop trigger if exists hint_at_job_lanes on public.repository_priority_changes;
create trigger hint_at_job_lanes after insert on public.repository_priority_changes
referencing new table as changes
for each statement execute function public.hint_at_job_lanes();

-- The priority of the jobs of a repository with such a tracked row: high in a workspace whatever the row says, and
-- medium where there is no row or no word of ours in it.
create or replace function public.job_priority(p_priority text, p_is_workspace_repo boolean)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
begin
    return case
        when p_is_workspace_repo then 'high'
        when p_priority in ('high', 'medium', 'low') then p_priority
        else 'medium'
    end;
end
$$;

-- The priority of a repository's jobs now.
create or replace function public.current_job_priority(p_repository_id uuid)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
    v_tracked record;
begin
    select tr.priority, tr.is_workspace_repo into v_tracked
    from public.tracked_repositories tr
    where tr.repository_id = p_repository_id
    order by tr.id
    limit 1;
    return public.job_priority(v_tracked.priority::text, v_tracked.is_workspace_repo);
end
$$;

-- The workspaces in whose lines a high repository stands: whichever has its turn first takes it, and no other turn is
-- used up by it. Only the first 16, so that a repository that thousands hold costs no more; the workspace of zeros
-- for one that nobody holds.
create or replace function public.workspaces_in_line(p_repository_id uuid)
returns uuid[]
language plpgsql
stable
set search_path = ''
as $$
declare
    c_nobody constant uuid := '00000000-0000-0000-0000-000000000000';
    c_most constant integer := 16;
    v_workspaces uuid[] := array(
        select distinct wr.workspace_id from public.workspace_repositories wr
        where wr.repository_id = p_repository_id and wr.workspace_id is not null
        order by wr.workspace_id
        limit c_most
    );
begin
    return case when v_workspaces = '{}' then array[c_nobody] else v_workspaces end;
end
$$;

-- Makes the lanes of these (job type, repository) pairs what they should be. For the holder of the queue's row only.
create or replace function public.place_job_lanes(p_job_types text[], p_repository_ids uuid[])
returns void
language plpgsql
set search_path = ''
as $$
declare
    c_nobody constant uuid := '00000000-0000-0000-0000-000000000000';
begin
    with named as (
        select distinct u.job_type, u.repository_id
        from unnest(p_job_types, p_repository_ids) u (job_type, repository_id)
    ),
    heads as materialized (
        select n.job_type, n.repository_id, h.queued_at, h.number, h.job_id
        from named n
        cross join lateral (
            select o.queued_at, o.number, o.job_id
            from public.workspace_priority_ordered_jobs o
            where o.job_type = n.job_type and o.repository_id = n.repository_id and o.released_at is null
            order by o.queued_at, o.number
            limit 1
        ) h
    ),
    lines as materialized (
        select p.repository_id, p.priority, w.workspace_id
        from (
            select r.repository_id, public.current_job_priority(r.repository_id) as priority
            from (select distinct h.repository_id from heads h) r
        ) p
        cross join lateral unnest(
            case when p.priority = 'high' then public.workspaces_in_line(p.repository_id) else array[c_nobody] end
        ) w (workspace_id)
    ),
    gone as (
        delete from public.workspace_priority_job_lanes l
        using named n
        where l.job_type = n.job_type and l.repository_id = n.repository_id
            and not exists (
                select from heads h join lines s on s.repository_id = h.repository_id
                where h.job_type = l.job_type and h.repository_id = l.repository_id
                    and s.workspace_id = l.workspace_id
            )
    ),
    placed as (
        insert into public.workspace_priority_job_lanes as l (
            job_type, repository_id, workspace_id, priority, head_queued_at, head_number, head_job_id
        )
        select h.job_type, h.repository_id, s.workspace_id, s.priority, h.queued_at, h.number, h.job_id
        from heads h
        join lines s on s.repository_id = h.repository_id
        on conflict (job_type, repository_id, workspace_id) do update
        set priority = excluded.priority, head_queued_at = excluded.head_queued_at,
            head_number = excluded.head_number, head_job_id = excluded.head_job_id
        where (l.priority, l.head_queued_at, l.head_job_id)
            is distinct from (excluded.priority, excluded.head_queued_at, excluded.head_job_id)
    )
    insert into public.workspace_priority_job_turns as t (job_type, workspace_id)
    select distinct h.job_type, s.workspace_id
    from heads h
    join lines s on s.repository_id = h.repository_id
    where s.priority = 'high'
    on conflict (job_type, workspace_id) do update set active = true where not t.active;
end
$$;

-- Follows the oldest hints, at most p_limit different ones; whether there were more. For the holder of the queue's row
-- only.
create or replace function public.follow_job_hints(p_limit integer)
returns boolean
language plpgsql
set search_path = ''
as $$
declare
    -- Many of the hints of a busy time are the same, and the same once is enough.
    c_repeats constant integer := 5;
    v_ids bigint[];
    v_hints public.workspace_priority_job_hints[];
    v_job_types text[];
    v_repository_ids uuid[];
begin
    v_hints := array(
        select h from public.workspace_priority_job_hints h order by h.id limit p_limit * c_repeats + 1
    );
    if v_hints = '{}' then
        return false;
    end if;
    with numbered as (
        select h.id, dense_rank() over (order by h.first_id) as n, h.job_type, h.repository_id
        from (
            select u.id, u.job_type, u.repository_id,
                min(u.id) over (partition by u.job_type, u.repository_id) as first_id
            from unnest(v_hints[:p_limit * c_repeats]) u
        ) h
    ),
    chosen as (
        select n.id, n.job_type, n.repository_id from numbered n where n.n <= p_limit
    ),
    expanded as (
        select distinct k.job_type, c.repository_id
        from chosen c
        join public.workspace_priority_job_types k on k.job_type = coalesce(c.job_type, k.job_type)
    )
    select (select array_agg(c.id) from chosen c), array_agg(e.job_type), array_agg(e.repository_id)
    into v_ids, v_job_types, v_repository_ids
    from expanded e;
    delete from public.workspace_priority_job_hints h where h.id = any (v_ids);
    perform public.place_job_lanes(v_job_types, v_repository_ids);
    return cardinality(v_hints) > cardinality(v_ids);
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Releasing
-- ---------------------------------------------------------------------------------------------------------

-- Takes jobs in flight that are over off the list, and those whose lease has ended back into their lanes; with
-- them what this daemon took and did not send, for it asks for more only when it has nothing in hand: it never got
-- the answer. For the holder of the queue's row only. Rows that somebody is writing are left for the next time. The
-- answer counts, by the priority that they went with, those that were sent and that nobody has reported on: lost.
create or replace function public.settle_ordered_jobs(p_daemon_id uuid)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_ids uuid[];
    v_job_types text[];
    v_repository_ids uuid[];
    v_lost jsonb;
begin
    -- Ids first, then rows by their ids: as one statement each would be a join, and planned as if it were large.
    v_ids := array(
        select f.job_id from public.workspace_priority_ordered_jobs f
        where f.released_at is not null
            -- One look-up each: there are few, however large background_jobs is. Null: deleted.
            and coalesce((select b.status::text from public.background_jobs b where b.id = f.job_id), 'deleted')
                not in ('queued', 'processing')
        for update skip locked
    );
    delete from public.workspace_priority_ordered_jobs o where o.job_id = any (v_ids);

    v_ids := array(
        select f.job_id from public.workspace_priority_ordered_jobs f
        where f.released_at is not null
            and (f.lease_until <= v_now or (f.released_by = p_daemon_id and f.sent_at is null))
        for update skip locked
    );
    if v_ids = '{}' then
        return '{}';
    end if;
    with ended as (
        select f.job_id, f.sent_at from public.workspace_priority_ordered_jobs f where f.job_id = any (v_ids)
    ),
    returned as (
        update public.workspace_priority_ordered_jobs o
        set released_at = null, released_by = null, sent_at = null, lease_until = null
        from ended e
        where o.job_id = any (v_ids) and o.job_id = e.job_id
        returning o.job_type, o.repository_id, o.released_priority, e.sent_at
    ),
    counted as (
        select r.released_priority, count(*) as jobs from returned r where r.sent_at is not null group by 1
    )
    select array_agg(r.job_type), array_agg(r.repository_id),
        (select jsonb_object_agg(c.released_priority, c.jobs) from counted c)
    into v_job_types, v_repository_ids, v_lost
    from returned r;
    perform public.place_job_lanes(v_job_types, v_repository_ids);
    return coalesce(v_lost, '{}');
end
$$;

-- Puts the next job of a lane at its head after the first one has been taken, or ends the lane: what
-- place_job_lanes would do if nothing else had changed, at a fifth of its cost. For the holder of the queue's row only.
create or replace function public.advance_job_lane(p_job_type text, p_repository_id uuid)
returns void
language plpgsql
set search_path = ''
as $$
declare
    v_next record;
begin
    select o.queued_at, o.number, o.job_id into v_next
    from public.workspace_priority_ordered_jobs o
    where o.job_type = p_job_type and o.repository_id = p_repository_id and o.released_at is null
    order by o.queued_at, o.number
    limit 1;
    if found then
        update public.workspace_priority_job_lanes l
        set head_queued_at = v_next.queued_at, head_number = v_next.number, head_job_id = v_next.job_id
        where l.job_type = p_job_type and l.repository_id = p_repository_id;
    else
        delete from public.workspace_priority_job_lanes l
        where l.job_type = p_job_type and l.repository_id = p_repository_id;
    end if;
end
$$;

-- Puts right a lane whose place or head has been changed behind our back; whether there was anything to do. Asked
-- before its head is passed over by a promotion: one that is over, or no longer higher, is not passed over. For the
-- holder of the queue's row only.
create or replace function public.mend_job_lane(
    p_job_type text,
    p_repository_id uuid,
    p_priority text,
    p_head_job_id uuid
)
returns boolean
language plpgsql
set search_path = ''
as $$
begin
    if public.current_job_priority(p_repository_id) <> p_priority then
        perform public.place_job_lanes(array[p_job_type], array[p_repository_id]);
        return true;
    end if;
    if exists (
        select from public.background_jobs b
        where b.id = p_head_job_id and b.status::text in ('queued', 'processing')
    ) then
        return false;
    end if;
    delete from public.workspace_priority_ordered_jobs o where o.job_id = p_head_job_id;
    perform public.advance_job_lane(p_job_type, p_repository_id);
    return true;
end
$$;

-- Takes the next job of a type out of its lane; null when there is none that can be had. For the holder of the queue's
-- row only. What it meets on the way is put right: a lane that is too high, jobs that are over before their turn. A
-- job that somebody else has locked is not waited for: its repository's jobs are left for the next release.
-- A job that is at work already (its event was accepted although sending it seemed to fail) takes its place in
-- flight without being sent again: such an answer has no `job_id`.
-- p_turn is the number of this release, p_promoted_last whether the last one of this type was a promotion.
create or replace function public.release_next_job(
    p_job_type text,
    p_turn bigint,
    p_promoted_last boolean,
    p_daemon_id uuid,
    p_promote_after_seconds double precision,
    p_claim_seconds double precision,
    p_lease_seconds double precision
)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
    c_nobody constant uuid := '00000000-0000-0000-0000-000000000000';
    -- Cancelled jobs may be many; the next release goes on.
    c_most_passed_over constant integer := 1000;
    v_now timestamptz := clock_timestamp();
    v_workspace uuid;
    v_high public.workspace_priority_job_lanes;
    v_medium public.workspace_priority_job_lanes;
    v_low public.workspace_priority_job_lanes;
    v_lane public.workspace_priority_job_lanes;
    v_choice record;
    v_tracked record;
    v_is_tracked boolean;
    v_status text;
    v_payload jsonb;
    v_releases integer;
begin
    for i in 1..c_most_passed_over loop
        v_high := null;
        v_workspace := null;
        select t.workspace_id into v_workspace from public.workspace_priority_job_turns t
        where t.job_type = p_job_type and t.active
        order by t.served, t.workspace_id
        limit 1;
        if v_workspace is not null then
            select l.* into v_high from public.workspace_priority_job_lanes l
            where l.job_type = p_job_type and l.priority = 'high' and l.workspace_id = v_workspace
            order by l.head_queued_at, l.head_number
            limit 1;
            if v_high.head_job_id is null then
                update public.workspace_priority_job_turns t set active = false
                where t.job_type = p_job_type and t.workspace_id = v_workspace;
                continue;
            end if;
        end if;
        select l.* into v_medium from public.workspace_priority_job_lanes l
        where l.job_type = p_job_type and l.priority = 'medium' and l.workspace_id = c_nobody
        order by l.head_queued_at, l.head_number
        limit 1;
        select l.* into v_low from public.workspace_priority_job_lanes l
        where l.job_type = p_job_type and l.priority = 'low' and l.workspace_id = c_nobody
        order by l.head_queued_at, l.head_number
        limit 1;
        select c.priority, c.promoted into v_choice
        from public.choose_job_priority(
            v_high.head_job_id is not null,
            extract(epoch from v_now - v_medium.head_queued_at),
            extract(epoch from v_now - v_low.head_queued_at),
            p_promoted_last,
            p_promote_after_seconds
        ) c;
        if v_choice.priority is null then
            return null;
        end if;
        if v_choice.promoted then
            v_lane := case when v_high.head_job_id is null then v_medium else v_high end;
            continue when public.mend_job_lane(
                p_job_type, v_lane.repository_id, v_lane.priority, v_lane.head_job_id
            );
        end if;
        v_lane := case v_choice.priority when 'high' then v_high when 'medium' then v_medium else v_low end;

        -- The row as it is now: what it was when the lane was placed may have been changed behind our back.
        select tr.priority, tr.is_workspace_repo, tr.workspace_count into v_tracked
        from public.tracked_repositories tr
        where tr.repository_id = v_lane.repository_id
        order by tr.id
        limit 1;
        v_is_tracked := found;
        if public.job_priority(v_tracked.priority::text, v_tracked.is_workspace_repo) <> v_lane.priority then
            perform public.place_job_lanes(array[p_job_type], array[v_lane.repository_id]);
            continue;
        end if;
        v_status := null;
        select b.status::text, b.payload::jsonb into v_status, v_payload from public.background_jobs b
        where b.id = v_lane.head_job_id
        for no key update skip locked;
        exit when v_status in ('queued', 'processing');

        if v_status is null and exists (
            select from public.background_jobs b where b.id = v_lane.head_job_id
        ) then
            delete from public.workspace_priority_job_lanes l
            where l.job_type = p_job_type and l.repository_id = v_lane.repository_id;
            insert into public.workspace_priority_job_hints (job_type, repository_id)
            values (p_job_type, v_lane.repository_id);
        else
            delete from public.workspace_priority_ordered_jobs o where o.job_id = v_lane.head_job_id;
            perform public.advance_job_lane(p_job_type, v_lane.repository_id);
        end if;
        v_status := null;
    end loop;
    if v_status is null then
        return '{"passed_over": true}';
    end if;

    if v_lane.priority = 'high' then
        update public.workspace_priority_job_turns t set served = p_turn
        where t.job_type = p_job_type and t.workspace_id = v_workspace;
    end if;
    update public.workspace_priority_ordered_jobs o
    set released_at = v_now, released_by = p_daemon_id, released_priority = v_lane.priority,
        releases = o.releases + case v_status when 'queued' then 1 else 0 end,
        sent_at = case v_status when 'processing' then v_now end,
        lease_until = v_now + make_interval(
            secs => case v_status when 'queued' then p_claim_seconds else p_lease_seconds end
        )
    where o.job_id = v_lane.head_job_id
    returning o.releases into v_releases;
    perform public.advance_job_lane(p_job_type, v_lane.repository_id);
    if v_status = 'processing' then
        return jsonb_build_object('at_work', true, 'promoted', v_choice.promoted);
    end if;

    -- From now on the payload says how the job went: with what priority (until now it was its repository's), and
    -- whether before its turn.
    v_payload := case when jsonb_typeof(v_payload) = 'object' then v_payload else '{}' end || jsonb_build_object(
        'priority', case v_lane.priority when 'high' then 100 when 'medium' then 50 else 25 end,
        'metadata', coalesce(v_payload -> 'metadata', '{}') || jsonb_build_object('promoted', v_choice.promoted)
    );
    update public.background_jobs b set payload = v_payload where b.id = v_lane.head_job_id;
    return jsonb_build_object(
        'job_id', v_lane.head_job_id,
        'job_type', p_job_type,
        'repository_id', v_lane.repository_id,
        'payload', v_payload,
        'tracked', case when v_is_tracked then to_jsonb(v_tracked) end,
        'priority', v_lane.priority,
        'promoted', v_choice.promoted,
        'waited_seconds', extract(epoch from v_now - v_lane.head_queued_at),
        'releases', v_releases,
        'turn', p_turn
    );
end
$$;

-- Releases up to p_limit jobs to this daemon, which is to send them and then to say so (mark_jobs_sent), within
-- p_claim_seconds; after that they count as not sent. A job in flight is lost when p_lease_seconds have passed
-- since it was sent and nobody reported on it. At most p_in_flight jobs of each type are in flight.
-- `busy`: another release is under way. `more`: call again at once.
create or replace function public.release_ordered_jobs(
    p_daemon_id uuid,
    p_in_flight integer,
    p_limit integer default 100,
    p_promote_after_seconds double precision default 72000,
    p_claim_seconds double precision default 60,
    p_lease_seconds double precision default 3600
)
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '2s'
set statement_timeout = '20s'
set jit = off
-- Every look is at the end of an index. What the planner knows of tables that fill and empty within seconds is
-- wrong more often than right.
set enable_seqscan = off
set enable_bitmapscan = off
set default_transaction_isolation = 'read committed'
as $$
declare
    c_hints constant integer := 10000;
    v_queue public.workspace_priority_job_queue;
    v_lost jsonb;
    v_type public.workspace_priority_job_types;
    v_free integer;
    v_job jsonb;
    v_jobs jsonb[] := '{}';
    v_turn bigint;
    v_more boolean;
begin
    perform public.check_workspace_priority_arguments(p_limit => p_limit);
    if p_daemon_id is null or (p_in_flight >= 1) is not true or (p_promote_after_seconds > 0) is not true
        or (p_claim_seconds >= 1 and p_claim_seconds <= 3600) is not true
        or (p_lease_seconds >= 1 and p_lease_seconds <= 604800) is not true then
        raise exception 'p_daemon_id must be an id, p_in_flight at least 1, p_promote_after_seconds above 0, '
            'p_claim_seconds between 1 and 3600, and p_lease_seconds between 1 and 604800'
            using errcode = 'invalid_parameter_value';
    end if;
    select q.* into v_queue from public.workspace_priority_job_queue q for no key update skip locked;
    if not found then
        return jsonb_build_object('busy', true, 'more', false, 'jobs', '[]'::jsonb);
    end if;
    v_turn := v_queue.turns;

    v_lost := public.settle_ordered_jobs(p_daemon_id);
    -- Nothing is taken before every hint is followed: the job that one of them tells of may be the first.
    v_more := public.follow_job_hints(c_hints);
    if not v_more then
        for v_type in select k.* from public.workspace_priority_job_types k order by k.served, k.job_type loop
            select p_in_flight - count(*) into v_free from public.workspace_priority_ordered_jobs o
            where o.job_type = v_type.job_type and o.released_at is not null;
            while v_free > 0 loop
                exit when cardinality(v_jobs) = p_limit;
                v_job := public.release_next_job(
                    v_type.job_type, v_turn + 1, v_type.promoted_last,
                    p_daemon_id, p_promote_after_seconds, p_claim_seconds, p_lease_seconds
                );
                exit when v_job is null;
                if v_job ? 'passed_over' then
                    v_more := true;
                    exit;
                end if;
                v_turn := v_turn + 1;
                v_type.served := v_turn;
                v_type.promoted_last := (v_job ->> 'promoted')::boolean;
                v_free := v_free - 1;
                if v_job ? 'job_id' then
                    v_jobs := v_jobs || v_job;
                end if;
            end loop;
            -- Once for all jobs of the type: each of many versions of a row in one transaction would be looked at.
            if v_type.served > v_queue.turns then
                update public.workspace_priority_job_types k
                set served = v_type.served, promoted_last = v_type.promoted_last
                where k.job_type = v_type.job_type;
            end if;
            if cardinality(v_jobs) = p_limit then
                v_more := true;
                exit;
            end if;
        end loop;
    end if;
    if v_turn > v_queue.turns or not v_queue.in_use then
        update public.workspace_priority_job_queue set turns = v_turn, in_use = true;
    end if;

    return jsonb_build_object(
        'busy', false,
        'more', v_more,
        'jobs', to_jsonb(v_jobs),
        'lost', v_lost,
        'waiting', exists (select from public.workspace_priority_job_lanes),
        'in_flight', (
            select coalesce(jsonb_object_agg(f.released_priority, f.jobs), '{}')
            from (
                select o.released_priority, count(*) as jobs from public.workspace_priority_ordered_jobs o
                where o.released_at is not null
                group by o.released_priority
            ) f
        )
    );
end
$$;

-- These were accepted by Inngest: each is in flight for p_lease_seconds from now.
create or replace function public.mark_jobs_sent(p_job_ids uuid[], p_lease_seconds double precision default 3600)
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '5s'
set statement_timeout = '15s'
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_ids uuid[];
begin
    if (p_lease_seconds >= 1 and p_lease_seconds <= 604800) is not true then
        raise exception 'p_lease_seconds must be between 1 and 604800' using errcode = 'invalid_parameter_value';
    end if;
    v_ids := array(
        select f.job_id from public.workspace_priority_ordered_jobs f
        where f.job_id = any (p_job_ids) and f.released_at is not null
        order by f.job_id
        for no key update
    );
    update public.workspace_priority_ordered_jobs o
    set sent_at = v_now, lease_until = v_now + make_interval(secs => p_lease_seconds)
    where o.job_id = any (v_ids);
    return jsonb_build_object('sent', cardinality(v_ids));
end
$$;

-- This daemon could not send these: they wait again, at their old places.
create or replace function public.return_unsent_jobs(p_daemon_id uuid, p_job_ids uuid[])
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '5s'
set statement_timeout = '15s'
as $$
declare
    v_ids uuid[];
begin
    v_ids := array(
        select o.job_id from public.workspace_priority_ordered_jobs o
        where o.job_id = any (p_job_ids) and o.released_by = p_daemon_id
            and o.released_at is not null and o.sent_at is null
        order by o.job_id
        for no key update
    );
    with returned as (
        update public.workspace_priority_ordered_jobs o
        set released_at = null, released_by = null, lease_until = null
        where o.job_id = any (v_ids)
        returning o.job_type, o.repository_id
    )
    insert into public.workspace_priority_job_hints (job_type, repository_id)
    select distinct r.job_type, r.repository_id from returned r;
    return jsonb_build_object('returned', cardinality(v_ids));
end
$$;

-- Inngest will never accept these: each ends as failed, with its reason where the table has a column for it.
create or replace function public.fail_refused_jobs(p_job_ids uuid[], p_reasons text[])
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '5s'
set statement_timeout = '15s'
as $$
declare
    v_ids uuid[];
begin
    v_ids := array(
        select b.id from public.background_jobs b
        where b.id = any (p_job_ids) and b.status in ('queued', 'processing')
        order by b.id
        for no key update
    );
    update public.background_jobs b set status = 'failed', failed_at = clock_timestamp() where b.id = any (v_ids);
    if exists (
        select from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
        where a.attrelid = 'public.background_jobs'::regclass and a.attname = 'error' and not a.attisdropped
            and t.typcategory = 'S'
    ) then
        execute 'update public.background_jobs b set error = u.reason
            from unnest($1, $2) u (id, reason) where b.id = u.id and b.id = any ($3)'
        using p_job_ids, p_reasons, v_ids;
    end if;
    delete from public.workspace_priority_ordered_jobs o where o.job_id = any (v_ids);
    return jsonb_build_object('failed', cardinality(v_ids));
end
$$;

-- Looks for lanes that are not where their repository's row and memberships say, or missing, and leaves hints at
-- them. Priorities that were written by hand are found so, before the sweep sees them, and high repositories that
-- have changed workspaces and stayed high; nothing else ever should. Also forgets when workspaces had their turns
-- that had none for long. Costs one pass over the lanes and the waiting jobs.
create or replace function public.check_job_lanes(p_limit integer default 5000)
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '2s'
set statement_timeout = '18s'
set jit = off
set default_transaction_isolation = 'read committed'
as $$
declare
    c_forgotten_turns constant bigint := 100000;
    v_found bigint;
begin
    perform public.check_workspace_priority_arguments(p_limit => p_limit);
    with current as (
        select l.job_type, l.repository_id, l.priority,
            public.job_priority(tr.priority::text, tr.is_workspace_repo) as should_be
        from public.workspace_priority_job_lanes l
        left join public.tracked_repositories tr on tr.repository_id = l.repository_id
    ),
    wrong as (
        select c.job_type, c.repository_id from current c where c.priority <> c.should_be
        union
        (
            select l.job_type, l.repository_id from public.workspace_priority_job_lanes l
            where l.priority = 'high'
            group by l.job_type, l.repository_id
            having array_agg(l.workspace_id order by l.workspace_id)
                <> public.workspaces_in_line(l.repository_id)
        )
        union
        (
            select o.job_type, o.repository_id from public.workspace_priority_ordered_jobs o
            where o.released_at is null
            except
            select l.job_type, l.repository_id from public.workspace_priority_job_lanes l
        )
        limit p_limit
    ),
    hinted as (
        insert into public.workspace_priority_job_hints (job_type, repository_id)
        select w.job_type, w.repository_id from wrong w
        where not exists (
            select from public.workspace_priority_job_hints h
            where h.job_type = w.job_type and h.repository_id = w.repository_id
        )
        returning 1
    )
    select count(*) into v_found from hinted;

    delete from public.workspace_priority_job_turns t
    where (t.job_type, t.workspace_id) in (
        select o.job_type, o.workspace_id from public.workspace_priority_job_turns o
        where not o.active and o.served < (
            select q.turns - c_forgotten_turns from public.workspace_priority_job_queue q
        )
        for update skip locked
    );
    return jsonb_build_object(
        'found', v_found, 'database_seconds', extract(epoch from clock_timestamp() - statement_timestamp())
    );
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Queueing
-- ---------------------------------------------------------------------------------------------------------

-- Raises for a job type that there is not, listing those there are.
create or replace function public.check_job_type(p_job_type text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
    if p_job_type is null
        or not exists (select from public.workspace_priority_job_types k where k.job_type = p_job_type) then
        raise exception 'there is no job type %; there are %',
            coalesce(quote_literal(left(p_job_type, 80)), 'null'),
            (select string_agg(k.job_type, ', ' order by k.job_type) from public.workspace_priority_job_types k)
            using errcode = 'invalid_parameter_value';
    end if;
end
$$;

-- Why this can't be queued, or null. The fields that are set when the event is built may not be given.
create or replace function public.explain_refused_job(p_job jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
declare
    c_uuid constant text := '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$';
    v_data jsonb := coalesce(nullif(p_job -> 'data', 'null'), '{}');
    v_metadata jsonb;
    v_own text;
begin
    if jsonb_typeof(p_job) is distinct from 'object' then
        return 'is no object';
    end if;
    if (p_job ->> 'repository_id' ~ c_uuid) is not true then
        return 'has no repository_id that is a uuid';
    end if;
    if coalesce(p_job ->> 'job_id' ~ c_uuid, true) is not true then
        return 'has a job_id that is no uuid';
    end if;
    if coalesce(jsonb_typeof(p_job -> 'repository_name'), 'null') not in ('string', 'null') then
        return 'has a repository_name that is no text';
    end if;
    if jsonb_typeof(v_data) <> 'object' then
        return 'has data that are no object';
    end if;
    v_metadata := coalesce(v_data -> 'metadata', '{}');
    if jsonb_typeof(v_metadata) <> 'object' then
        return 'has data.metadata that are no object';
    end if;
    select string_agg(k.key, ', ' order by k.key) into v_own
    from (
        select 'data.' || d.key as key from jsonb_object_keys(v_data) d (key)
        where d.key in ('jobId', 'repositoryId', 'repositoryName', 'priority', 'priorityScore')
        union all
        select 'data.metadata.' || m.key from jsonb_object_keys(v_metadata) m (key)
        where m.key in (
            'isWorkspaceRepo', 'workspaceCount', 'originalPriority', 'priority', 'priorityScore', 'priorityLookup',
            'promoted'
        )
    ) k;
    return 'may not hold ' || v_own || ': that is set here';
end
$$;

-- Those of these repositories that background_jobs can't name, because a foreign key of it does not know them.
create or replace function public.repositories_unknown_to_jobs(p_repository_ids uuid[])
returns uuid[]
language plpgsql
stable
set search_path = ''
as $$
declare
    v_known regclass;
    v_column name;
    v_unknown uuid[];
begin
    select c.confrelid, f.attname into v_known, v_column
    from pg_catalog.pg_constraint c
    join pg_catalog.pg_attribute a on a.attrelid = c.conrelid and a.attname = 'repository_id'
    join pg_catalog.pg_attribute f on f.attrelid = c.confrelid and f.attnum = c.confkey[1]
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
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '5s'
set statement_timeout = '20s'
set default_transaction_isolation = 'read committed'
as $$
declare
    c_most constant integer := 5000;
    v_now timestamptz := clock_timestamp();
    v_bad record;
    v_type text;
    v_unknown uuid[];
    v_queued bigint;
    v_answer jsonb;
    v_named jsonb;
begin
    if jsonb_typeof(p_jobs) is distinct from 'array' or jsonb_array_length(p_jobs) > c_most then
        raise exception 'p_jobs must be an array of at most % jobs', c_most using errcode = 'invalid_parameter_value';
    end if;
    select e.position, public.explain_refused_job(e.job) as reason into v_bad
    from jsonb_array_elements(p_jobs) with ordinality e (job, position)
    where public.explain_refused_job(e.job) is not null
    order by e.position
    limit 1;
    if v_bad.reason is not null then
        raise exception 'job % %', v_bad.position, v_bad.reason using errcode = 'invalid_parameter_value';
    end if;
    for v_type in
        select distinct coalesce(e.job ->> 'job_type', p_job_type) from jsonb_array_elements(p_jobs) e (job)
    loop
        perform public.check_job_type(v_type);
    end loop;
    if not exists (select from public.workspace_priority_job_queue q where q.in_use) then
        update public.workspace_priority_job_queue set in_use = true;
    end if;

    -- Ids are given out here, once, because they are read several times below.
    select coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'position', e.position,
                    'job_id', coalesce((e.job ->> 'job_id')::uuid, gen_random_uuid()),
                    'job_type', coalesce(e.job ->> 'job_type', p_job_type),
                    'repository_id', (e.job ->> 'repository_id')::uuid,
                    'payload', jsonb_strip_nulls(
                        jsonb_build_object(
                            'repositoryId', (e.job ->> 'repository_id')::uuid,
                            'repositoryName', e.job ->> 'repository_name'
                        )
                    ) || coalesce(nullif(e.job -> 'data', 'null'), '{}')
                )
            ),
            '[]'
        )
    into v_named
    from jsonb_array_elements(p_jobs) with ordinality e (job, position);
    v_unknown := public.repositories_unknown_to_jobs(
        array(select (n.job ->> 'repository_id')::uuid from jsonb_array_elements(v_named) n (job))
    );

    with named as (
        select r.* from jsonb_to_recordset(v_named) r (
            position integer, job_id uuid, job_type text, repository_id uuid, payload jsonb
        )
    ),
    known as (
        select distinct on (n.job_id) n.* from named n
        where n.repository_id <> all (v_unknown)
        order by n.job_id, n.position
    ),
    inserted as (
        insert into public.background_jobs (id, type, payload, status, repository_id, created_at)
        select k.job_id, k.job_type, k.payload || jsonb_build_object('jobId', k.job_id), 'queued',
            k.repository_id, v_now
        from known k
        on conflict (id) do nothing
        returning id
    ),
    ordered as (
        insert into public.workspace_priority_ordered_jobs (job_id, job_type, repository_id, queued_at)
        select k.job_id, k.job_type, k.repository_id, v_now
        from known k
        join inserted i on i.id = k.job_id
        order by k.position
        returning job_type, repository_id
    ),
    hinted as (
        insert into public.workspace_priority_job_hints (job_type, repository_id)
        select distinct o.job_type, o.repository_id from ordered o
    )
    select (select count(*) from inserted),
        coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'job_id', n.job_id,
                    'repository_id', n.repository_id,
                    'priority', public.current_job_priority(n.repository_id),
                    'tracked', (
                        select jsonb_build_object(
                            'priority', tr.priority, 'is_workspace_repo', tr.is_workspace_repo,
                            'workspace_count', tr.workspace_count
                        )
                        from public.tracked_repositories tr
                        where tr.repository_id = n.repository_id
                        order by tr.id
                        limit 1
                    )
                )
                order by n.position
            ) filter (where n.repository_id <> all (v_unknown)),
            '[]'
        )
    into v_queued, v_answer
    from named n;

    return jsonb_build_object(
        'queued', v_queued,
        'jobs', v_answer,
        'refused', (
            select coalesce(
                jsonb_agg(
                    jsonb_build_object(
                        'job_id', n.job ->> 'job_id', 'repository_id', n.job ->> 'repository_id',
                        'reason', 'there is no such repository'
                    )
                    order by (n.job ->> 'position')::integer
                ),
                '[]'
            )
            from jsonb_array_elements(v_named) n (job)
            where (n.job ->> 'repository_id')::uuid = any (v_unknown)
        )
    );
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Looking and cancelling
-- ---------------------------------------------------------------------------------------------------------

-- Cancels these jobs, or all of a repository (of one type), as far as they wait. `in_flight` are those that can't be
-- called back.
create or replace function public.cancel_ordered_jobs(
    p_job_ids uuid[] default null,
    p_repository_id uuid default null,
    p_job_type text default null
)
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '5s'
set statement_timeout = '20s'
as $$
declare
    v_chosen uuid[];
    v_ids uuid[];
    v_in_flight bigint;
begin
    if p_job_ids is null and p_repository_id is null then
        raise exception 'name jobs or a repository' using errcode = 'invalid_parameter_value';
    end if;
    if p_job_type is not null then
        perform public.check_job_type(p_job_type);
    end if;
    -- Two queries, so that each has its index.
    if p_job_ids is not null then
        v_chosen := array(
            select o.job_id from public.workspace_priority_ordered_jobs o
            where o.job_id = any (p_job_ids) and o.repository_id = coalesce(p_repository_id, o.repository_id)
                and o.job_type = coalesce(p_job_type, o.job_type)
        );
    else
        v_chosen := array(
            select o.job_id
            from public.workspace_priority_job_types k
            join public.workspace_priority_ordered_jobs o on o.job_type = k.job_type
            where k.job_type = coalesce(p_job_type, k.job_type) and o.repository_id = p_repository_id
        );
    end if;

    -- In the order in which a release locks: the job, then what is known of it. A release in which one of them is
    -- being taken is waited for, and has taken it.
    perform from public.background_jobs b where b.id = any (v_chosen) order by b.id for no key update;
    v_ids := array(
        select o.job_id from public.workspace_priority_ordered_jobs o
        where o.job_id = any (v_chosen) and o.released_at is null
        order by o.job_id
        for no key update
    );
    select count(*) into v_in_flight from public.workspace_priority_ordered_jobs o
    where o.job_id = any (v_chosen) and o.released_at is not null;

    update public.background_jobs b set status = 'cancelled', completed_at = clock_timestamp()
    where b.id = any (v_ids) and b.status = 'queued';
    with cancelled as (
        delete from public.workspace_priority_ordered_jobs o
        where o.job_id = any (v_ids)
        returning o.job_type, o.repository_id
    )
    insert into public.workspace_priority_job_hints (job_type, repository_id)
    select distinct c.job_type, c.repository_id from cancelled c;
    return jsonb_build_object('cancelled', cardinality(v_ids), 'in_flight', v_in_flight);
end
$$;

-- The jobs in flight, then those that wait in the order in which they would be released, with `position` within
-- their type; of one type or one repository if wanted. The positions are those of this moment: they hold if nothing
-- is queued, changed, cancelled or promoted meanwhile, and a repository in several workspaces counts for the one of
-- them whose turn is next. Costs a look at every job that waits.
create or replace function public.list_ordered_jobs(
    p_job_type text default null,
    p_repository_id uuid default null,
    p_limit integer default 100
)
returns jsonb
language plpgsql
stable
set search_path = ''
set statement_timeout = '30s'
set jit = off
as $$
declare
    v_jobs jsonb;
    v_found bigint;
begin
    perform public.check_workspace_priority_arguments(p_limit => p_limit);
    if p_job_type is not null then
        perform public.check_job_type(p_job_type);
    end if;
    with lines as (
        select distinct on (l.job_type, l.repository_id)
            l.job_type, l.repository_id, l.priority, l.workspace_id, coalesce(t.served, 0) as served
        from public.workspace_priority_job_lanes l
        left join public.workspace_priority_job_turns t
            on t.job_type = l.job_type and t.workspace_id = l.workspace_id
        order by l.job_type, l.repository_id, coalesce(t.served, 0), l.workspace_id
    ),
    listed as (
        select o.*, coalesce(
                o.released_priority, s.priority, public.current_job_priority(o.repository_id)
            ) as priority,
            s.workspace_id, s.served, o.released_at is null as waits
        from public.workspace_priority_ordered_jobs o
        join public.background_jobs b on b.id = o.job_id
        left join lines s on s.job_type = o.job_type and s.repository_id = o.repository_id
        where o.job_type = coalesce(p_job_type, o.job_type)
            and (b.status = 'queued' or (o.released_at is not null and b.status = 'processing'))
    ),
    turned as (
        select l.*, row_number() over (
                partition by l.job_type, l.waits, l.priority, l.workspace_id order by l.queued_at, l.number
            ) as turn
        from listed l
    ),
    placed as (
        select t.*, row_number() over (
                partition by t.job_type, t.waits
                order by array_position(array['high', 'medium', 'low'], t.priority), t.turn, t.served, t.workspace_id
            ) as position
        from turned t
    ),
    wanted as (
        select p.*, count(*) over () as found
        from placed p
        where p.repository_id = coalesce(p_repository_id, p.repository_id)
        order by p.waits, p.position, p.job_type
        limit p_limit
    )
    select coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'job_id', w.job_id,
                    'job_type', w.job_type,
                    'repository_id', w.repository_id,
                    'state', case when w.waits then 'waiting' when w.sent_at is null then 'released' else 'in_flight' end,
                    'position', case when w.waits then w.position end,
                    'priority', w.priority,
                    'queued_at', w.queued_at,
                    'released_at', w.released_at,
                    'lease_until', w.lease_until,
                    'releases', w.releases
                )
                order by w.waits, w.position, w.job_type
            ),
            '[]'
        ),
        coalesce(max(w.found), 0)
    into v_jobs, v_found
    from wanted w;
    return jsonb_build_object('jobs', v_jobs, 'found', v_found);
end
$$;

-- What waits and what is in flight, by job type and priority. Costs a look at every job that waits.
create or replace function public.count_ordered_jobs()
returns jsonb
language plpgsql
stable
set search_path = ''
set statement_timeout = '30s'
set jit = off
as $$
begin
    return (
        with lanes as (
            select distinct l.job_type, l.repository_id, l.priority from public.workspace_priority_job_lanes l
        ),
        jobs as (
            select o.job_type, coalesce(o.released_priority, l.priority, 'medium') as priority,
                o.released_at is null as waits, o.queued_at
            from public.workspace_priority_ordered_jobs o
            left join lanes l
                on l.job_type = o.job_type and l.repository_id = o.repository_id and o.released_at is null
        )
        select coalesce(jsonb_agg(to_jsonb(g) order by g.job_type, g.priority), '[]')
        from (
            select j.job_type, j.priority,
                count(*) filter (where j.waits) as waiting,
                count(*) filter (where not j.waits) as in_flight,
                greatest(
                    extract(epoch from clock_timestamp() - min(j.queued_at) filter (where j.waits)), 0
                ) as oldest_seconds
            from jobs j
            group by j.job_type, j.priority
        ) g
    );
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Inversions
-- ---------------------------------------------------------------------------------------------------------

-- What job telemetry calls an inversion, now that there are promotions, which are counted by themselves and are none,
-- and limits for each type: a job waits for others of its type, and is overtaken by no other. A table without the
-- column `type` keeps being judged as a whole.
do $do$
begin
    if not exists (
        select from pg_attribute
        where attrelid = 'public.background_jobs'::regclass and attname = 'type' and not attisdropped
    ) then
        return;
    end if;
    execute $inversions$
create or replace function public.find_background_job_inversions(
    p_from timestamptz, p_until timestamptz, p_sample integer default 5
)
returns jsonb
language plpgsql
stable
set search_path = ''
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_custom_plan
as $$
declare
    v_found jsonb;
begin
    with waits as (
        select j.id, j.created_at, j.started_at, j.started_at as waited_until, j.repository_id, j.type::text as type,
            j.payload::jsonb -> 'priority' as queued_with, (j.failed_at < j.started_at) is not true as first_turn,
            j.payload::jsonb #>> '{metadata,promoted}' is not distinct from 'true' as promoted
        from public.background_jobs j
        where j.started_at > p_from
        union all
        select j.id, j.created_at, null, 'infinity', j.repository_id, j.type::text, j.payload::jsonb -> 'priority', true,
            false
        from public.background_jobs j
        where j.status = 'queued' and j.started_at is null
        union all
        select j.id, j.created_at, null, greatest(j.completed_at, j.failed_at), j.repository_id, j.type::text,
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
            select public.background_job_priority(t.queued_with, t.repository_priority) as priority
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
    $inversions$;
end
$do$;

-- ---------------------------------------------------------------------------------------------------------
-- Privileges: service_role only
-- ---------------------------------------------------------------------------------------------------------

do $$
declare
    v_function regprocedure;
    v_role text;
begin
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.proname in (
            'advance_job_lane', 'cancel_ordered_jobs', 'check_job_lanes', 'check_job_type', 'choose_job_priority',
            'count_ordered_jobs', 'current_job_priority', 'explain_refused_job', 'fail_refused_jobs',
            'follow_job_hints', 'hint_at_job_lanes', 'job_priority', 'list_ordered_jobs', 'mark_jobs_sent',
            'mend_job_lane', 'place_job_lanes', 'queue_repository_jobs', 'release_next_job', 'release_ordered_jobs',
            'repositories_unknown_to_jobs', 'return_unsent_jobs', 'settle_ordered_jobs', 'workspaces_in_line'
        )
    loop
        execute format('revoke all on function %s from public', v_function);
        for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
            execute format('revoke all on function %s from %I', v_function, v_role);
        end loop;
        if exists (select from pg_roles where rolname = 'service_role') then
            execute format('grant execute on function %s to service_role', v_function);
        end if;
    end loop;
end
$$;

notify pgrst, 'reload schema';
