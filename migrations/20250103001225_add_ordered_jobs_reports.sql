-- What a daemon says of the ordered jobs that were released to it.

do $functions$
begin
    if not priorityd.start_unit('20250103001225 functions', 1, '{20250103001200 functions}', array[
        'mark_jobs_sent', 'return_unsent_jobs', 'fail_refused_jobs', 'settle_lost_jobs'
    ]) then
        return;
    end if;

    -- These were accepted by Inngest: each is in flight for p_lease_seconds from now. p_event_ids are Inngest's own for the
    -- events: of a job that is sent again the first one is kept, because a repeat starts nothing.
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
        if (p_lease_seconds >= 1 and p_lease_seconds <= 604800) is not true then
            raise exception 'p_lease_seconds must be between 1 and 604800' using errcode = 'invalid_parameter_value';
        end if;
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

    -- This daemon could not send these: they wait again, at their old places.
    create or replace function public.return_unsent_jobs(p_daemon_id uuid, p_job_ids uuid[])
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_ids uuid[];
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
        insert into priorityd.job_hints (job_type, repository_id)
        select distinct r.job_type, r.repository_id from returned r where r.losses = 0;
        return jsonb_build_object('returned', cardinality(v_ids));
    end
    $$;

    -- Inngest will never accept these: each ends as failed, with its reason where the table has a column for it. Those
    -- whose rows the application keeps from being written are `refused`; they are off the list as well.
    create or replace function public.fail_refused_jobs(p_job_ids uuid[], p_reasons text[])
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_ended record;
    begin
        perform from public.background_jobs b where b.id = any (p_job_ids) order by b.id for no key update;
        v_ended := priorityd.end_jobs(p_job_ids, p_reasons, 'failed');
        delete from priorityd.ordered_jobs o where o.job_id = any (p_job_ids);
        return jsonb_build_object('failed', cardinality(v_ended.ended), 'refused', to_jsonb(v_ended.refused));
    end
    $$;

    -- What Inngest says of lost jobs: one that runs is in flight again, for p_lease_seconds from now; one that is over
    -- ends so in background_jobs too.
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
        v_ids uuid[];
        v_ended record;
        v_refused jsonb[] := '{}';
    begin
        if (p_lease_seconds >= 1 and p_lease_seconds <= 604800) is not true
            or not p_statuses <@ '{running,completed,failed,cancelled}' then
            raise exception 'p_lease_seconds must be between 1 and 604800, and p_statuses running, completed, failed or cancelled'
                using errcode = 'invalid_parameter_value';
        end if;
        perform from public.background_jobs b where b.id = any (p_job_ids) order by b.id for no key update;
        foreach v_status in array array['completed', 'failed', 'cancelled'] loop
            v_ids := array(select u.id from unnest(p_job_ids, p_statuses) u (id, status) where u.status = v_status);
            continue when v_ids = '{}';
            v_ended := priorityd.end_jobs(
                v_ids, array_fill('nobody reported on it; Inngest says: ' || v_status, array[cardinality(v_ids)]), v_status
            );
            v_refused := v_refused || v_ended.refused;
            delete from priorityd.ordered_jobs o where o.job_id = any (v_ids);
        end loop;
        v_ids := array(select u.id from unnest(p_job_ids, p_statuses) u (id, status) where u.status = 'running');
        update priorityd.ordered_jobs o
        set losses = 0, sent_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => p_lease_seconds)
        where o.job_id = any (v_ids) and o.released_at is not null;
        return jsonb_build_object('refused', to_jsonb(v_refused));
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
