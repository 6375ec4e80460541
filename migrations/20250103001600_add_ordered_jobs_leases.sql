-- Ordered jobs in flight: those that have ended, those that are lost, and what daemons report about them.

do $functions$
begin
    if not priorityd.start_unit('20250103001600 functions', 1, '{20250103001500 functions}', array[
        'mark_jobs_sent', 'return_unsent_jobs', 'fail_refused_jobs', 'settle_lost_jobs'
    ]) then
        return;
    end if;

    -- These jobs, each with its repository and the repository's name, for messages about single jobs.
    create or replace function priorityd.named_jobs(p_jobs jsonb[])
    returns jsonb language plpgsql stable as $$
    begin
        if p_jobs = '{}' then
            return '[]';
        end if;
        return (
            with jobs as materialized (
                select j.job, j.position,
                    (select b.repository_id from public.background_jobs b where b.id = (j.job ->> 'job_id')::uuid) as repository_id
                from unnest(p_jobs) with ordinality j (job, position)
            )
            select jsonb_agg(
                j.job || jsonb_build_object('repository_id', j.repository_id, 'name', n.name) order by j.position
            )
            from jobs j
            left join priorityd.repository_names(array(select k.repository_id from jobs k)) n
                on n.repository_id = j.repository_id
        );
    end
    $$;

    create or replace function priorityd.jobs_in_flight(p_job_ids uuid[])
    returns setof priorityd.ordered_jobs language sql stable as $$
        select o.* from priorityd.ordered_jobs o where o.job_id = any (p_job_ids) and o.released_at is not null
    $$;

    -- The ids of the jobs in flight, and of some that no longer are.
    create or replace function priorityd.ids_in_flight()
    returns uuid[] language sql stable as $$
        select array(select u.id from priorityd.job_types k cross join unnest(k.in_flight) u (id))
    $$;

    -- Takes jobs in flight that have ended off the list. Locked rows are left for the next time.
    create or replace function priorityd.forget_ended_jobs()
    returns void language plpgsql as $$
    declare
        -- Ids first, then rows by their ids: a single statement would be a join, and planned as if it were large.
        v_ids constant uuid[] := array(
            select f.job_id from priorityd.ordered_jobs f
            where f.job_id = any (priorityd.ids_in_flight()) and f.released_at is not null
                -- One look-up each: few jobs are in flight, however large background_jobs is. Null: deleted.
                and coalesce((select b.status::text from public.background_jobs b where b.id = f.job_id), 'deleted')
                    not in ('queued', 'processing')
            for update skip locked
        );
    begin
        delete from priorityd.ordered_jobs o where o.job_id = any (v_ids);
    end
    $$;

    -- Ends jobs that were lost too often as failed. Locked ones are left for the next time.
    create or replace function priorityd.give_up_lost_jobs(p_terms priorityd.release_terms)
    returns uuid[] language plpgsql as $$
    declare
        v_ids constant uuid[] := array(
            select o.job_id from priorityd.job_types k
            cross join lateral (
                select a.job_id from priorityd.ordered_jobs a
                where a.job_type = k.job_type and a.aside_until is not null and a.losses >= p_terms.most_leases
                for update skip locked
            ) o
        );
        v_free uuid[];
    begin
        if v_ids = '{}' then
            return v_ids;
        end if;
        v_free := array(
            select b.id from public.background_jobs b where b.id = any (v_ids) order by b.id for no key update skip locked
        );
        perform priorityd.end_jobs(
            v_free, array_fill(format('no report came within %s leases', p_terms.most_leases), array[cardinality(v_free)]),
            'failed'
        );
        delete from priorityd.ordered_jobs o
        where o.job_id = any (v_ids)
            and (o.job_id = any (v_free) or not exists (select from public.background_jobs b where b.id = o.job_id));
        return v_free;
    end
    $$;

    -- Takes jobs whose lease has expired out of flight, and also those that this daemon took and did not send: a daemon asks
    -- for more only when it has none left to send, so it never got the answer. Jobs that were sent and got no report are
    -- lost and set aside: they take up no place and no lane. The others go back into their lanes, and so do jobs whose time
    -- aside is over and that were never lost. The answer counts the lost ones by their priority at release.
    create or replace function priorityd.end_leases(p_terms priorityd.release_terms)
    returns jsonb language plpgsql as $$
    declare
        v_now constant timestamptz := clock_timestamp();
        v_ids constant uuid[] := array(
            select f.job_id from priorityd.ordered_jobs f
            where f.job_id = any (priorityd.ids_in_flight()) and f.released_at is not null
                and (f.lease_until <= v_now or (f.daemon_id = p_terms.daemon_id and f.sent_at is null))
            for update skip locked
        ) || array(
            select o.job_id from priorityd.job_types k
            cross join lateral (
                select a.job_id from priorityd.ordered_jobs a
                where a.job_type = k.job_type and a.aside_until <= v_now and a.losses = 0
                for update skip locked
            ) o
        );
        v_job_types text[];
        v_repository_ids uuid[];
        v_lost jsonb;
    begin
        if v_ids = '{}' then
            return '{}';
        end if;
        with ended as (
            select f.job_id, f.sent_at is not null as lost from priorityd.ordered_jobs f where f.job_id = any (v_ids)
        ),
        returned as (
            update priorityd.ordered_jobs o
            set released_at = null, daemon_id = null, sent_at = null, lease_until = null,
                losses = o.losses + e.lost::integer, aside_until = case when e.lost or o.losses > 0 then v_now end
            from ended e
            where o.job_id = any (v_ids) and o.job_id = e.job_id
            returning o.job_type, o.repository_id, o.released_priority, o.losses, e.lost
        ),
        counted as (
            select r.released_priority, count(*) as jobs from returned r where r.lost group by 1
        )
        select array_agg(r.job_type) filter (where r.losses = 0), array_agg(r.repository_id) filter (where r.losses = 0),
            coalesce((select jsonb_object_agg(c.released_priority, c.jobs) from counted c), '{}')
        into v_job_types, v_repository_ids, v_lost
        from returned r;
        if v_job_types is not null then
            perform priorityd.place_job_lanes(v_job_types, v_repository_ids);
        end if;
        return v_lost;
    end
    $$;

    -- Releases lost jobs of a type once more, those that have been lost longest first. This starts nothing until Inngest
    -- forgets their events, which takes 24 hours. So they take no place from the others, but have places of their own, a
    -- tenth of p_in_flight.
    create or replace function priorityd.release_lost_jobs(
        p_type priorityd.job_types, p_turn bigint, p_limit integer, p_terms priorityd.release_terms
    )
    returns jsonb[] language plpgsql as $$
    declare
        -- Many of them may have ended; the next release goes on.
        c_most_looked_at constant integer := 1000;
        v_free constant bigint := greatest(p_terms.in_flight / 10, 1) - (
            select count(*) from priorityd.jobs_in_flight(p_type.in_flight) f where f.losses > 0
        );
        v_lost priorityd.ordered_jobs;
        v_taken record;
        v_tracked jsonb;
        v_jobs jsonb[] := '{}';
    begin
        if v_free <= 0 then
            return v_jobs;
        end if;
        for v_lost in
            select o.* from priorityd.ordered_jobs o
            where o.job_type = p_type.job_type and o.aside_until <= clock_timestamp()
                and o.losses between 1 and p_terms.most_leases - 1
            order by o.aside_until, o.number
            limit c_most_looked_at
            for update skip locked
        loop
            exit when cardinality(v_jobs) >= least(v_free, p_limit);
            v_taken := priorityd.take_job(v_lost.job_id);
            continue when v_taken.status is null;
            v_tracked := priorityd.tracked_row(v_lost.repository_id);
            v_jobs := v_jobs || priorityd.describe_release(
                priorityd.put_in_flight(
                    v_lost.job_id,
                    priorityd.job_priority(v_tracked ->> 'priority', (v_tracked ->> 'is_workspace_repo')::boolean),
                    false, p_terms
                ),
                v_taken.payload, v_tracked, false, p_turn
            );
        end loop;
        return v_jobs;
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- What a daemon reports about the jobs that were released to it
    -- ---------------------------------------------------------------------------------------------------------------

    -- Records that Inngest has accepted these jobs: each is in flight for p_lease_seconds from now. p_event_ids are
    -- Inngest's own ids of the events; of a job that is sent again the first is kept, because a repeat starts nothing.
    create or replace function public.mark_jobs_sent(
        p_job_ids uuid[], p_lease_seconds double precision default 3600, p_event_ids text[] default null
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_now timestamptz := clock_timestamp();
        v_ids uuid[];
    begin
        perform priorityd.check_range('p_lease_seconds', p_lease_seconds, 1, 604800);
        v_ids := array(
            select f.job_id from priorityd.ordered_jobs f
            where f.job_id = any (p_job_ids) and f.released_at is not null
            order by f.job_id
            for no key update
        );
        update priorityd.ordered_jobs o
        set sent_at = v_now, lease_until = v_now + make_interval(secs => p_lease_seconds),
            event_id = coalesce(o.event_id, u.event_id)
        from unnest(p_job_ids, p_event_ids) u (id, event_id)
        where o.job_id = any (v_ids) and o.job_id = u.id;
        return jsonb_build_object('sent', cardinality(v_ids));
    end
    $$;

    -- Returns jobs that this daemon could not send: they wait again, in their old places.
    create or replace function public.return_unsent_jobs(p_daemon_id uuid, p_job_ids uuid[])
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_ids uuid[];
        v_job_types text[];
        v_repository_ids uuid[];
    begin
        v_ids := array(
            select o.job_id from priorityd.ordered_jobs o
            where o.job_id = any (p_job_ids) and o.daemon_id = p_daemon_id
                and o.released_at is not null and o.sent_at is null
            order by o.job_id
            for no key update
        );
        with returned as (
            update priorityd.ordered_jobs o
            set released_at = null, daemon_id = null, lease_until = null,
                aside_until = case when o.losses > 0 then clock_timestamp() end
            where o.job_id = any (v_ids)
            returning o.job_type, o.repository_id, o.losses
        )
        select array_agg(r.job_type), array_agg(r.repository_id) into v_job_types, v_repository_ids
        from returned r where r.losses = 0;
        perform priorityd.leave_job_hints(v_job_types, v_repository_ids);
        return jsonb_build_object('returned', cardinality(v_ids));
    end
    $$;

    -- Ends jobs that Inngest will never accept as failed, with the reason if the table has a column for it. Those whose
    -- row the application does not let us write are `refused`; they are taken off the list as well. Those whose rows others
    -- have locked stay on it, and are released once more when their claim ends.
    create or replace function public.fail_refused_jobs(p_job_ids uuid[], p_reasons text[])
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_free constant uuid[] := priorityd.lock_job_rows(p_job_ids);
        v_ended record;
    begin
        v_ended := priorityd.end_jobs(
            array(select u.id from unnest(p_job_ids, p_reasons) with ordinality u (id, reason, n)
                  where u.id = any (v_free) order by u.n),
            array(select u.reason from unnest(p_job_ids, p_reasons) with ordinality u (id, reason, n)
                  where u.id = any (v_free) order by u.n),
            'failed'
        );
        delete from priorityd.ordered_jobs o where o.job_id = any (v_free);
        return jsonb_build_object('failed', cardinality(v_ended.ended), 'refused', priorityd.named_jobs(v_ended.refused));
    end
    $$;

    -- Records what Inngest says about lost jobs: one that is running is in flight again, for p_lease_seconds from now; one
    -- that has ended gets the same status in background_jobs, unless its row is locked: then it stays lost, and Inngest is
    -- asked again.
    create or replace function public.settle_lost_jobs(
        p_job_ids uuid[], p_statuses text[], p_lease_seconds double precision default 3600
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_status text;
        v_free uuid[];
        v_ids uuid[];
        v_ended record;
        v_refused jsonb[] := '{}';
    begin
        perform priorityd.check_range('p_lease_seconds', p_lease_seconds, 1, 604800);
        if not p_statuses <@ '{running,completed,failed,cancelled}' then
            raise exception 'p_statuses must be running, completed, failed or cancelled'
                using errcode = 'invalid_parameter_value';
        end if;
        v_free := priorityd.lock_job_rows(
            array(select u.id from unnest(p_job_ids, p_statuses) u (id, status) where u.status <> 'running')
        );
        foreach v_status in array array['completed', 'failed', 'cancelled'] loop
            v_ids := array(
                select u.id from unnest(p_job_ids, p_statuses) u (id, status)
                where u.status = v_status and u.id = any (v_free)
            );
            continue when v_ids = '{}';
            v_ended := priorityd.end_jobs(
                v_ids, array_fill('no report came; Inngest says: ' || v_status, array[cardinality(v_ids)]), v_status
            );
            v_refused := v_refused || v_ended.refused;
            delete from priorityd.ordered_jobs o where o.job_id = any (v_ids);
        end loop;
        v_ids := array(select u.id from unnest(p_job_ids, p_statuses) u (id, status) where u.status = 'running');
        update priorityd.ordered_jobs o
        set losses = 0, sent_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => p_lease_seconds)
        where o.job_id = any (v_ids) and o.released_at is not null;
        return jsonb_build_object('refused', priorityd.named_jobs(v_refused));
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
