-- Job telemetry, second part: which jobs overtook one of a higher priority.

do $functions$
declare
    v_type text;
begin
    if not priorityd.start_unit('20250103002000 functions', 1, '{20250103001900 functions}') then
        return;
    end if;

    -- The ordered jobs that were sent within the last minute before p_until: they wait until they say that they have started.
    -- If one has not said so for longer, it is unknown whether it waits, runs or is lost.
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

    -- Since when the jobs of these repositories have the priority that they have, by the trail; null if always.
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

    -- The jobs that started after p_from, and those that they may have overtaken: those that still wait, or have been
    -- cancelled since. Of the queued jobs, only the first of each group of a walk (p_queue) need be looked at.
    --
    -- A job waits until it starts or, if it never does, until it is cancelled. `first_turn`: a job that had failed
    -- before its start has had its turn already, so it was not overtaken.
    v_type := case
        when exists (
            select from pg_attribute
            where attrelid = to_regclass('public.background_jobs') and attname = 'type' and not attisdropped
        ) then 'left(j.type::text, 200)'
        else 'null::text'
    end;
    execute format($definition$
        create or replace function priorityd.job_waits(p_from timestamptz, p_until timestamptz, p_queue jsonb)
        returns table (
            id uuid, repository_id uuid, type text, payload jsonb, created_at timestamptz, started_at timestamptz,
            waited_until timestamptz, first_turn boolean
        )
        language plpgsql stable
        set enable_seqscan = off
        set jit = off
        set plan_cache_mode = force_custom_plan
        as $$
        declare
            -- A start that is dated later than that means nothing.
            c_end constant timestamptz := p_until + interval '1 day';
            v_about_to_start constant uuid[] := priorityd.jobs_about_to_start(p_until);
        begin
            return query
            select j.id, j.repository_id, %1$s, priorityd.parsed_payload(j.payload), j.created_at, j.started_at,
                case when j.started_at < c_end then j.started_at else 'infinity' end,
                (j.failed_at < j.started_at) is not true
            from public.background_jobs j
            where j.started_at > p_from
            union all
            select j.id, j.repository_id, %1$s, priorityd.parsed_payload(j.payload), j.created_at, null, 'infinity', true
            from (
                select distinct q.first_at, q.first_id
                from jsonb_to_recordset(p_queue) q (first_at timestamptz, first_id uuid)
            ) f
            join public.background_jobs j on j.created_at = f.first_at and j.id = f.first_id
            where j.status = 'queued' and j.started_at is null
            union all
            select j.id, j.repository_id, %1$s, priorityd.parsed_payload(j.payload), j.created_at, null, 'infinity', true
            from public.background_jobs j
            where j.id = any (v_about_to_start) and j.status = 'queued' and j.started_at is null
            union all
            select j.id, j.repository_id, %1$s, priorityd.parsed_payload(j.payload), j.created_at, null,
                case
                    when greatest(j.completed_at, j.failed_at) < c_end then greatest(j.completed_at, j.failed_at)
                    else 'infinity'
                end,
                true
            from public.background_jobs j
            where greatest(j.completed_at, j.failed_at) is not null and greatest(j.completed_at, j.failed_at) > p_from
                and j.started_at is null and j.status::text = 'cancelled';
        end
        $$;
    $definition$, v_type);

    -- The same with the priority of each, and since when it has waited with it: since its creation if it was queued with
    -- that priority, else since its repository has had it.
    create or replace function priorityd.ranked_job_waits(p_from timestamptz, p_until timestamptz, p_queue jsonb)
    returns table (
        id uuid, repository_id uuid, type text, created_at timestamptz, started_at timestamptz, waited_until timestamptz,
        first_turn boolean, promoted boolean, priority text, rank integer, since timestamptz
    )
    language sql stable as $$
        with waits as materialized (
            select w.*, priorityd.queued_priority(priorityd.priority_word(w.payload)) as queued_with,
                priorityd.was_released(w.payload) as released
            from priorityd.job_waits(p_from, p_until, p_queue) w
        ),
        looked_up as materialized (
            select p.* from priorityd.job_priorities(
                array(select distinct w.repository_id from waits w where w.queued_with is null)
            ) p
        ),
        risen as materialized (
            select p.* from priorityd.job_priorities_since(
                array(select distinct w.repository_id from waits w where w.queued_with is null or w.released)
            ) p
        )
        select w.id, w.repository_id, w.type, w.created_at, w.started_at, w.waited_until, w.first_turn,
            w.payload #>> '{metadata,promoted}' is not distinct from 'true',
            p.priority, array_position(array['low', 'medium', 'high'], p.priority),
            case when w.queued_with is null or w.released then greatest(w.created_at, s.since) else w.created_at end
        from waits w
        left join looked_up l on l.repository_id = w.repository_id
        left join risen s on s.repository_id = w.repository_id
        cross join lateral (select coalesce(w.queued_with, l.priority, 'medium') as priority) p
    $$;

    -- The same, judged: a job overtook another if it started, not after p_until, p_margin_seconds or more before one of a
    -- higher priority that was queued no later. Promotions are counted separately.
    --
    -- Going backwards through the ends of all waits, the earliest beginning of a wait seen so far shows whether a start
    -- came too early: one pass, instead of comparing every job with every other.
    create or replace function priorityd.judged_job_waits(
        p_from timestamptz, p_until timestamptz, p_queue jsonb, p_margin_seconds double precision
    )
    returns table (
        id uuid, repository_id uuid, type text, created_at timestamptz, started_at timestamptz, waited_until timestamptz,
        first_turn boolean, priority text, rank integer, since timestamptz, overtook boolean
    )
    language sql stable as $$
        select r.id, r.repository_id, r.type, r.created_at, r.started_at, r.waited_until, r.first_turn, r.priority, r.rank,
            r.since,
            r.started_at <= p_until and not r.promoted and r.created_at >= case r.rank
                when 1 then min(r.since) filter (where r.first_turn and r.rank >= 2) over later
                when 2 then min(r.since) filter (where r.first_turn and r.rank = 3) over later
            end
        from priorityd.ranked_job_waits(p_from, p_until, p_queue) r
        window later as (
            partition by r.type
            order by r.waited_until desc
            range between unbounded preceding and make_interval(secs => p_margin_seconds) preceding
        )
    $$;

    -- How many jobs overtook another, and the last p_sample of them, each with one that it overtook and the names of both
    -- repositories.
    create or replace function priorityd.find_job_inversions(
        p_from timestamptz, p_until timestamptz, p_queue jsonb, p_sample integer default 5,
        p_margin_seconds double precision default 1
    )
    returns jsonb language plpgsql stable
    set enable_seqscan = off
    set jit = off
    set plan_cache_mode = force_custom_plan
    as $$
    begin
        return (
            with judged as materialized (
                select j.* from priorityd.judged_job_waits(p_from, p_until, p_queue, p_margin_seconds) j
            ),
            sample as (
                select j.* from judged j where j.overtook order by j.started_at desc, j.id limit p_sample
            ),
            pairs as materialized (
                select s.id, s.repository_id, s.priority, s.started_at, h.id as waiting_id,
                    h.repository_id as waiting_repository_id, h.priority as waiting_priority
                from sample s
                cross join lateral (
                    select w.id, w.repository_id, w.priority from judged w
                    where w.first_turn and w.rank > s.rank and w.type is not distinct from s.type
                        and w.since <= s.created_at
                        and w.waited_until >= s.started_at + make_interval(secs => p_margin_seconds)
                    order by w.since, w.id
                    limit 1
                ) h
            ),
            named as materialized (
                select n.* from priorityd.repository_names(
                    array(select p.repository_id from pairs p union select p.waiting_repository_id from pairs p)
                ) n
            )
            select jsonb_build_object(
                'count', (select count(*) from judged j where j.overtook),
                'sample', coalesce(
                    jsonb_agg(
                        jsonb_build_object(
                            'job_id', p.id, 'repository_id', p.repository_id, 'name', n.name,
                            'priority', p.priority, 'started_at', p.started_at,
                            'waiting_job_id', p.waiting_id, 'waiting_repository_id', p.waiting_repository_id,
                            'waiting_name', w.name, 'waiting_priority', p.waiting_priority
                        )
                        order by p.started_at desc, p.id
                    ),
                    '[]'
                )
            )
            from pairs p
            left join named n on n.repository_id = p.repository_id
            left join named w on w.repository_id = p.waiting_repository_id
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
