-- Undoes 20250103000700_add_workspace_priority_ordered_jobs.sql. Stop the daemon before. Jobs that were queued in order
-- and still wait stay in background_jobs as queued, and nobody releases them any more. The table itself goes only if
-- the migration made it and it is empty.

do $$
begin
    perform set_config('lock_timeout', '15s', true);
end
$$;

do $$
begin
    if to_regclass('public.repository_priority_changes') is not null then
        drop trigger if exists hint_at_job_lanes on public.repository_priority_changes;
    end if;
end
$$;

drop function if exists public.count_ordered_jobs();
drop function if exists public.list_ordered_jobs(text, uuid, integer);
drop function if exists public.cancel_ordered_jobs(uuid[], uuid, text);
drop function if exists public.queue_repository_jobs(jsonb, text);
drop function if exists public.repositories_unknown_to_jobs(uuid[]);
drop function if exists public.explain_refused_job(jsonb);
drop function if exists public.check_job_type(text);
drop function if exists public.check_job_lanes(integer);
drop function if exists public.fail_refused_jobs(uuid[], text[]);
drop function if exists public.return_unsent_jobs(uuid, uuid[]);
drop function if exists public.mark_jobs_sent(uuid[], double precision);
drop function if exists public.release_ordered_jobs(
    uuid, integer, integer, double precision, double precision, double precision
);
drop function if exists public.release_next_job(
    text, bigint, boolean, uuid, double precision, double precision, double precision
);
drop function if exists public.mend_job_lane(text, uuid, text, uuid);
drop function if exists public.advance_job_lane(text, uuid);
drop function if exists public.settle_ordered_jobs(uuid);
drop function if exists public.follow_job_hints(integer);
drop function if exists public.place_job_lanes(text[], uuid[]);
drop function if exists public.workspaces_in_line(uuid);
drop function if exists public.current_job_priority(uuid);
drop function if exists public.job_priority(text, boolean);
drop function if exists public.hint_at_job_lanes();
drop function if exists public.choose_job_priority(
    boolean, double precision, double precision, boolean, double precision
);

drop table if exists public.workspace_priority_job_hints;
drop table if exists public.workspace_priority_job_turns;
drop table if exists public.workspace_priority_job_lanes;
drop table if exists public.workspace_priority_ordered_jobs;
drop table if exists public.workspace_priority_job_types;
drop table if exists public.workspace_priority_job_queue;

do $$
declare
    v_created text[];
    v_jobs boolean;
begin
    if to_regclass('public.workspace_priority_migrations') is null then
        return;
    end if;
    delete from public.workspace_priority_migrations where version = '20250103000700' returning created into v_created;
    if 'table background_jobs' = any (v_created) and to_regclass('public.background_jobs') is not null then
        execute 'select exists (select from public.background_jobs)' into v_jobs;
        if v_jobs then
            raise notice 'background_jobs stays, because there are jobs in it';
        else
            drop table public.background_jobs;
        end if;
    end if;
end
$$;

-- What an inversion is as 20250103000600 has it.
do $undo$
begin
    if to_regprocedure('public.find_background_job_inversions(timestamptz, timestamptz, integer)') is null then
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
        select j.id, j.created_at, j.started_at, j.started_at as waited_until, j.repository_id,
            j.payload::jsonb -> 'priority' as queued_with, (j.failed_at < j.started_at) is not true as first_turn
        from public.background_jobs j
        where j.started_at > p_from
        union all
        select j.id, j.created_at, null, 'infinity', j.repository_id, j.payload::jsonb -> 'priority', true
        from public.background_jobs j
        where j.status = 'queued' and j.started_at is null
        union all
        select j.id, j.created_at, null, greatest(j.completed_at, j.failed_at), j.repository_id,
            j.payload::jsonb -> 'priority', true
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
            select distinct on (p.queued_with, p.repository_priority) p.* from placed p
            where p.waited_until = 'infinity'
            order by p.queued_with, p.repository_priority, p.created_at, p.id
        )
    ),
    ranked as materialized (
        select t.id, t.created_at, t.started_at, t.waited_until, t.first_turn, p.priority,
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
        window later as (order by r.waited_until desc groups between unbounded preceding and 1 preceding)
    ),
    inverted as (
        select j.id, j.priority, j.rank, j.created_at, j.started_at
        from judged j
        where j.started_at <= p_until
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
                    where r.first_turn and r.rank > s.rank
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
$undo$;

notify pgrst, 'reload schema';
