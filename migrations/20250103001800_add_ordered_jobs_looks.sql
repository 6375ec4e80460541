-- Checking, listing, counting and cancelling ordered jobs.

do $functions$
begin
    if not priorityd.start_unit('20250103001800 functions', 1, '{20250103001700 functions}', array[
        'check_job_lanes', 'cancel_ordered_jobs', 'list_ordered_jobs', 'count_ordered_jobs'
    ]) then
        return;
    end if;

    -- Finds up to p_limit lanes that are not where they should be according to their waiting jobs, their repository's row
    -- and its memberships, and leaves hints at those that have none. Costs one pass over the lanes and the waiting jobs.
    create or replace function priorityd.hint_at_misplaced_lanes(p_limit integer, out misplaced bigint, out hinted bigint)
    language plpgsql
    set enable_seqscan = on
    set enable_bitmapscan = on
    as $$
    declare
        v_job_types text[];
        v_repository_ids uuid[];
    begin
        with heads as materialized (
            select distinct on (o.job_type, o.repository_id) o.job_type, o.repository_id, o.job_id
            from priorityd.ordered_jobs o
            where o.released_at is null and o.aside_until is null
            order by o.job_type, o.repository_id, o.queued_at, o.number
        ),
        current as materialized (
            select p.repository_id, p.priority
            from priorityd.job_priorities(array(select distinct h.repository_id from heads h)) p
        ),
        lanes as materialized (
            select l.job_type, l.repository_id, array_agg(l.workspace_id order by l.workspace_id) as workspaces,
                min(l.priority) as priority, (array_agg(l.head_job_id))[1] as head_job_id
            from priorityd.job_lanes l
            group by l.job_type, l.repository_id
        ),
        wrong as (
            select coalesce(h.job_type, l.job_type) as job_type, coalesce(h.repository_id, l.repository_id) as repository_id
            from heads h
            full join lanes l on l.job_type = h.job_type and l.repository_id = h.repository_id
            left join current c on c.repository_id = h.repository_id
            where l.head_job_id is distinct from h.job_id or l.priority <> coalesce(c.priority, 'medium')
                or (l.priority = 'high' and l.workspaces <> priorityd.workspaces_in_line(l.repository_id))
            limit p_limit
        )
        select array_agg(w.job_type), array_agg(w.repository_id) into v_job_types, v_repository_ids from wrong w;
        misplaced := coalesce(cardinality(v_job_types), 0);
        hinted := priorityd.leave_job_hints(v_job_types, v_repository_ids);
    end
    $$;

    -- Finds misplaced lanes, and leaves hints at them. This finds priorities written by hand, before the sweep sees them, and
    -- high repositories that have changed workspaces and stayed high; there should be no other cause. It also forgets the
    -- turns of workspaces that have had none for a long time.
    create or replace function public.check_job_lanes(p_limit integer default 5000)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '2s'
    set statement_timeout = '18s'
    set jit = off
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        c_forgotten_turns constant bigint := 100000;
        v_found bigint;
    begin
        perform priorityd.check_limit(p_limit);
        v_found := (priorityd.hint_at_misplaced_lanes(p_limit)).hinted;
        delete from priorityd.job_turns t
        where (t.job_type, t.workspace_id) in (
            select o.job_type, o.workspace_id from priorityd.job_turns o
            where not o.active and o.served < (
                select q.turns - c_forgotten_turns from priorityd.release_state q
            )
            for update skip locked
        );
        return jsonb_build_object(
            'found', v_found, 'database_seconds', extract(epoch from clock_timestamp() - statement_timestamp())
        );
    end
    $$;

    -- Cancels these jobs, or all of a repository (of one type), if they are still waiting. `in_flight` counts those that
    -- can't be called back, `refused` lists those whose rows the application's triggers or checks do not let change, and
    -- `locked` counts those whose rows others have locked: another call cancels them.
    create or replace function public.cancel_ordered_jobs(
        p_job_ids uuid[] default null,
        p_repository_id uuid default null,
        p_job_type text default null
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '20s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_chosen uuid[];
        v_ids uuid[];
        v_in_flight bigint;
        v_locked bigint;
        v_ended record;
        v_job_types text[];
        v_repository_ids uuid[];
    begin
        if p_job_ids is null and p_repository_id is null then
            raise exception 'give p_job_ids or p_repository_id' using errcode = 'invalid_parameter_value';
        end if;
        if p_job_type is not null then
            perform priorityd.check_job_type(p_job_type);
        end if;
        -- Two queries, so that each has its index.
        if p_job_ids is not null then
            v_chosen := array(
                select o.job_id from priorityd.ordered_jobs o
                where o.job_id = any (p_job_ids) and o.repository_id = coalesce(p_repository_id, o.repository_id)
                    and o.job_type = coalesce(p_job_type, o.job_type)
            );
        else
            v_chosen := array(
                select o.job_id
                from priorityd.job_types k
                join priorityd.ordered_jobs o on o.job_type = k.job_type
                where k.job_type = coalesce(p_job_type, k.job_type) and o.repository_id = p_repository_id
            );
        end if;

        if v_chosen = '{}' then
            return '{"cancelled": 0, "in_flight": 0, "locked": 0, "refused": []}';
        end if;
        -- Lock in the same order as a release: the job, then our row of it.
        v_ids := priorityd.lock_job_rows(v_chosen);
        v_ids := array(
            select o.job_id from priorityd.ordered_jobs o
            where o.job_id = any (v_ids)
            order by o.job_id
            for no key update skip locked
        );
        v_locked := (
            select count(*) from priorityd.ordered_jobs o
            where o.job_id = any (v_chosen) and not exists (select from unnest(v_ids) i (id) where i.id = o.job_id)
        );
        v_chosen := v_ids;
        -- A job that was started out of turn can't be called back either.
        select coalesce(array_agg(o.job_id) filter (where o.released_at is null and b.status::text = 'queued'), '{}'),
            count(*) filter (where o.released_at is not null or b.status::text = 'processing')
        into v_ids, v_in_flight
        from priorityd.ordered_jobs o
        join public.background_jobs b on b.id = o.job_id
        where o.job_id = any (v_chosen);

        v_ended := priorityd.end_jobs(v_ids, array_fill('cancelled'::text, array[cardinality(v_ids)]), 'cancelled');
        with cancelled as (
            delete from priorityd.ordered_jobs o
            where o.job_id = any (v_ids)
                and o.job_id <> all (array(select (r.job ->> 'job_id')::uuid from unnest(v_ended.refused) r (job)))
            returning o.job_type, o.repository_id
        )
        select array_agg(c.job_type), array_agg(c.repository_id) into v_job_types, v_repository_ids from cancelled c;
        perform priorityd.leave_job_hints(v_job_types, v_repository_ids);
        return jsonb_build_object(
            'cancelled', coalesce(cardinality(v_job_types), 0), 'in_flight', v_in_flight, 'locked', v_locked,
            'refused', priorityd.named_jobs(v_ended.refused)
        );
    end
    $$;

    -- The lines in which waiting jobs stand, with the current priorities of their repositories. Lanes are moved by releases,
    -- so they are out of date while no jobs are released: then the answer is where the next release would put them, which
    -- costs a look at the memberships of each.
    create or replace function priorityd.current_lines(p_job_type text)
    returns table (job_type text, repository_id uuid, priority text, workspace_id text)
    language sql stable as $$
        with waiting as materialized (
            select distinct o.job_type, o.repository_id
            from priorityd.ordered_jobs o
            where o.released_at is null and o.aside_until is null and o.job_type = coalesce(p_job_type, o.job_type)
        ),
        current as materialized (
            select w.job_type, w.repository_id, coalesce(p.priority, 'medium') as priority
            from waiting w
            left join priorityd.job_priorities(array(select distinct repository_id from waiting)) p using (repository_id)
        )
        select c.job_type, c.repository_id, c.priority, l.workspace_id
        from current c
        join priorityd.job_lanes l using (job_type, repository_id, priority)
        union all
        select c.job_type, c.repository_id, c.priority, n.workspace_id
        from current c
        cross join lateral unnest(
            case when c.priority = 'high' then priorityd.workspaces_in_line(c.repository_id) else array[''] end
        ) n (workspace_id)
        where not exists (
            select from priorityd.job_lanes l
            where l.job_type = c.job_type and l.repository_id = c.repository_id and l.priority = c.priority
        )
    $$;

    -- The jobs in flight or set aside (lost ones, and those whose rows can't be written), then the waiting ones in the order
    -- in which they would be released, with their `position` within the type; optionally of one type or one repository.
    -- `asked_seconds` is how long ago a daemon last asked for jobs (null: never). The positions are those of this moment:
    -- they hold if nothing is queued, changed, cancelled or promoted meanwhile, and a repository in several workspaces
    -- counts for the one whose turn is next. Reads every waiting job.
    create or replace function public.list_ordered_jobs(
        p_job_type text default null,
        p_repository_id uuid default null,
        p_limit integer default 100
    )
    returns jsonb language plpgsql stable
    set search_path = public, extensions
    set statement_timeout = '30s'
    set jit = off
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_jobs jsonb;
        v_found bigint;
    begin
        perform priorityd.check_limit(p_limit);
        if p_job_type is not null then
            perform priorityd.check_job_type(p_job_type);
        end if;
        -- A table that can't hold ordered jobs can't be read as below.
        if not exists (select from priorityd.ordered_jobs) then
            return jsonb_build_object('jobs', '[]'::jsonb, 'found', 0, 'asked_seconds', priorityd.release_asked_seconds());
        end if;
        with lines as (
            select distinct on (l.job_type, l.repository_id)
                l.job_type, l.repository_id, l.priority, l.workspace_id, coalesce(t.served, 0) as served
            from priorityd.current_lines(p_job_type) l
            left join priorityd.job_turns t
                on t.job_type = l.job_type and t.workspace_id = l.workspace_id
            order by l.job_type, l.repository_id, coalesce(t.served, 0), l.workspace_id
        ),
        listed as (
            select o.*, coalesce(
                    case when o.released_at is not null or o.aside_until is not null then o.released_priority end,
                    s.priority, priorityd.current_job_priority(o.repository_id)
                ) as priority,
                s.workspace_id, s.served, o.released_at is null and o.aside_until is null as waits
            from priorityd.ordered_jobs o
            join public.background_jobs b on b.id = o.job_id
            left join lines s on s.job_type = o.job_type and s.repository_id = o.repository_id
            where o.job_type = coalesce(p_job_type, o.job_type)
                and b.status::text in ('queued', 'processing')
                and (b.status::text = 'queued' or o.released_at is not null or o.losses > 0)
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
                        'name', n.name,
                        'state', case
                            when w.waits then 'waiting' when w.losses > 0 then 'lost' when w.aside_until is not null then 'aside'
                            when w.sent_at is null then 'released' else 'in_flight'
                        end,
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
        from wanted w
        left join priorityd.repository_names(array(select distinct repository_id from wanted)) n using (repository_id);
        return jsonb_build_object(
            'jobs', v_jobs, 'found', v_found, 'asked_seconds', priorityd.release_asked_seconds()
        );
    end
    $$;

    -- How many jobs wait and are in flight, by job type and priority (of waiting jobs, the current one), and how long ago a
    -- daemon last asked for jobs (null: never). Reads every waiting job.
    create or replace function public.count_ordered_jobs()
    returns jsonb language plpgsql stable
    set search_path = public, extensions
    set statement_timeout = '30s'
    set jit = off
    set default_transaction_isolation = 'read committed'
    as $$
    begin
        if not exists (select from priorityd.ordered_jobs) then
            return jsonb_build_object('jobs', '[]'::jsonb, 'asked_seconds', priorityd.release_asked_seconds());
        end if;
        return (
            with current as (
                select p.repository_id, p.priority
                from priorityd.job_priorities(
                    array(select distinct o.repository_id from priorityd.ordered_jobs o where o.released_at is null)
                ) p
            ),
            jobs as (
                select o.job_type, coalesce(
                        case when o.released_at is not null or o.aside_until is not null then o.released_priority end,
                        c.priority, 'medium'
                    ) as priority,
                    o.released_at is null and o.losses = 0 as waits, o.released_at is not null and o.losses = 0 as flies,
                    o.losses > 0 as lost, o.queued_at
                from priorityd.ordered_jobs o
                join public.background_jobs b on b.id = o.job_id
                left join current c on c.repository_id = o.repository_id
                where b.status::text = 'queued'
                    or (b.status::text = 'processing' and (o.released_at is not null or o.losses > 0))
            )
            select jsonb_build_object(
                'jobs', coalesce(jsonb_agg(to_jsonb(g) order by g.job_type, g.priority), '[]'),
                'asked_seconds', priorityd.release_asked_seconds()
            )
            from (
                select j.job_type, j.priority,
                    count(*) filter (where j.waits) as waiting,
                    count(*) filter (where j.flies) as in_flight,
                    count(*) filter (where j.lost) as lost,
                    greatest(
                        extract(epoch from clock_timestamp() - min(j.queued_at) filter (where j.waits)), 0
                    ) as oldest_seconds
                from jobs j
                group by j.job_type, j.priority
            ) g
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
