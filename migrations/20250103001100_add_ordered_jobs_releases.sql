-- Releasing ordered jobs: which is the next, and putting it in flight. All of it is done by the holder of the only row of
-- priorityd.release_state; the order is told at the top of 20250103000900.

do $functions$
begin
    if not priorityd.start_unit('20250103001100 functions', 1, '{20250103001000 functions}', '{release_ordered_jobs}') then
        return;
    end if;

    -- From which priority the next job of a type is taken, and whether that is a promotion. The same as
    -- core/jobs/release_policy.py, where the reasons are. Arguments: whether a high job waits, for how long the oldest
    -- medium and low ones have (null: none does), and whether the last release of this type was a promotion.
    -- `priority` is null when nothing waits.
    create or replace function priorityd.choose_job_priority(
        p_high_waits boolean,
        p_medium_seconds double precision,
        p_low_seconds double precision,
        p_promoted_last boolean,
        p_promote_after_seconds double precision,
        out priority text,
        out promoted boolean
    )
    language plpgsql immutable as $$
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

    -- The lane of a priority, in the line of a workspace, whose head is the oldest.
    create or replace function priorityd.first_lane(p_job_type text, p_priority text, p_workspace_id text)
    returns priorityd.job_lanes language plpgsql stable as $$
    declare
        v_lane priorityd.job_lanes;
    begin
        select l.* into v_lane from priorityd.job_lanes l
        where l.job_type = p_job_type and l.priority = p_priority and l.workspace_id = p_workspace_id
        order by l.head_queued_at, l.head_number
        limit 1;
        return v_lane;
    end
    $$;

    -- The lane from which the next job of a type is taken: none waits if it is null. turn_of is the workspace whose turn
    -- it is, of a high one. `again`: something on the way was put right, so look again.
    create or replace function priorityd.choose_lane(
        p_job_type text,
        p_promoted_last boolean,
        p_promote_after_seconds double precision,
        out lane priorityd.job_lanes,
        out turn_of text,
        out promoted boolean,
        out again boolean
    )
    language plpgsql as $$
    declare
        c_nobody constant text := '';
        v_now constant timestamptz := clock_timestamp();
        v_high priorityd.job_lanes;
        v_medium constant priorityd.job_lanes := priorityd.first_lane(p_job_type, 'medium', c_nobody);
        v_low constant priorityd.job_lanes := priorityd.first_lane(p_job_type, 'low', c_nobody);
        v_passed_over priorityd.job_lanes;
        v_choice record;
    begin
        again := false;
        select t.workspace_id into turn_of from priorityd.job_turns t
        where t.job_type = p_job_type and t.active
        order by t.served, t.workspace_id
        limit 1;
        if turn_of is not null then
            v_high := priorityd.first_lane(p_job_type, 'high', turn_of);
            if v_high.head_job_id is null then
                update priorityd.job_turns t set active = false
                where t.job_type = p_job_type and t.workspace_id = turn_of;
                again := true;
                return;
            end if;
        end if;
        select c.priority, c.promoted into v_choice
        from priorityd.choose_job_priority(
            v_high.head_job_id is not null,
            extract(epoch from v_now - v_medium.head_queued_at),
            extract(epoch from v_now - v_low.head_queued_at),
            p_promoted_last,
            p_promote_after_seconds
        ) c;
        promoted := v_choice.promoted;
        if promoted then
            v_passed_over := case when v_high.head_job_id is null then v_medium else v_high end;
            again := priorityd.mend_job_lane(
                p_job_type, v_passed_over.repository_id, v_passed_over.priority, v_passed_over.head_job_id
            );
        end if;
        lane := case v_choice.priority when 'high' then v_high when 'medium' then v_medium when 'low' then v_low end;
    end
    $$;

    -- Locks the head of a lane. `status` is null if it is not to be had, and what was in the way has been put right: a
    -- lane that is too high, a job that is over before its turn. One that somebody else has locked is not waited for:
    -- its repository's jobs are left for the next release.
    create or replace function priorityd.take_head(
        p_lane priorityd.job_lanes, out status text, out payload jsonb, out tracked jsonb
    )
    language plpgsql as $$
    begin
        -- The row as it is now: what it was when the lane was placed may have been changed behind our back.
        select jsonb_build_object(
                'priority', tr.priority, 'is_workspace_repo', tr.is_workspace_repo, 'workspace_count', tr.workspace_count
            )
        into tracked
        from public.tracked_repositories tr
        where tr.repository_id = p_lane.repository_id
        order by tr.id
        limit 1;
        if priorityd.job_priority(tracked ->> 'priority', (tracked ->> 'is_workspace_repo')::boolean) <> p_lane.priority then
            perform priorityd.place_job_lanes(array[p_lane.job_type], array[p_lane.repository_id]);
            return;
        end if;
        select b.status::text, b.payload::jsonb into status, payload from public.background_jobs b
        where b.id = p_lane.head_job_id
        for no key update skip locked;
        if status in ('queued', 'processing') then
            return;
        end if;

        if status is null and exists (select from public.background_jobs b where b.id = p_lane.head_job_id) then
            delete from priorityd.job_lanes l
            where l.job_type = p_lane.job_type and l.repository_id = p_lane.repository_id;
            insert into priorityd.job_hints (job_type, repository_id) values (p_lane.job_type, p_lane.repository_id);
        else
            delete from priorityd.ordered_jobs o where o.job_id = p_lane.head_job_id;
            perform priorityd.advance_job_lane(p_lane.job_type, p_lane.repository_id);
        end if;
        status := null;
    end
    $$;

    -- Puts the head of a lane in flight and brings the lane's next job forward; how often it has been released.
    -- One that is at work already takes its place in flight as one that was sent.
    create or replace function priorityd.put_in_flight(
        p_lane priorityd.job_lanes,
        p_status text,
        p_daemon_id uuid,
        p_claim_seconds double precision,
        p_lease_seconds double precision
    )
    returns integer language plpgsql as $$
    declare
        v_now constant timestamptz := clock_timestamp();
        v_releases integer;
    begin
        update priorityd.ordered_jobs o
        set released_at = v_now, daemon_id = p_daemon_id, released_priority = p_lane.priority,
            releases = o.releases + case p_status when 'queued' then 1 else 0 end,
            sent_at = case p_status when 'processing' then v_now end,
            lease_until = v_now + make_interval(
                secs => case p_status when 'queued' then p_claim_seconds else p_lease_seconds end
            )
        where o.job_id = p_lane.head_job_id
        returning o.releases into v_releases;
        perform priorityd.advance_job_lane(p_lane.job_type, p_lane.repository_id);
        return v_releases;
    end
    $$;

    -- From now on the payload says how a job went: with what priority (until now it was its repository's), and whether
    -- before its turn.
    create or replace function priorityd.write_release(
        p_job_id uuid, p_payload jsonb, p_priority text, p_promoted boolean
    )
    returns jsonb language plpgsql as $$
    declare
        v_payload constant jsonb := case when jsonb_typeof(p_payload) = 'object' then p_payload else '{}' end
            || jsonb_build_object(
                'priority', priorityd.score(p_priority),
                'metadata', coalesce(p_payload -> 'metadata', '{}') || jsonb_build_object('promoted', p_promoted)
            );
    begin
        update public.background_jobs b set payload = v_payload where b.id = p_job_id;
        return v_payload;
    end
    $$;

    -- Takes the next job of a type out of its lane; null when there is none that can be had.
    -- A job that is at work already (its event was accepted although sending it seemed to fail) takes its place in
    -- flight without being sent again: such an answer has no `job_id`.
    -- p_turn is the number of this release, p_promoted_last whether the last one of this type was a promotion.
    create or replace function priorityd.release_next_job(
        p_job_type text,
        p_turn bigint,
        p_promoted_last boolean,
        p_daemon_id uuid,
        p_promote_after_seconds double precision,
        p_claim_seconds double precision,
        p_lease_seconds double precision
    )
    returns jsonb language plpgsql as $$
    declare
        -- Cancelled jobs may be many; the next release goes on.
        c_most_passed_over constant integer := 1000;
        v_choice record;
        v_lane priorityd.job_lanes;
        v_head record;
        v_status text;
        v_releases integer;
    begin
        for i in 1..c_most_passed_over loop
            v_choice := priorityd.choose_lane(p_job_type, p_promoted_last, p_promote_after_seconds);
            continue when v_choice.again;
            v_lane := v_choice.lane;
            if v_lane.head_job_id is null then
                return null;
            end if;
            v_head := priorityd.take_head(v_lane);
            v_status := v_head.status;
            exit when v_status is not null;
        end loop;
        if v_status is null then
            return '{"passed_over": true}';
        end if;

        if v_lane.priority = 'high' then
            update priorityd.job_turns t set served = p_turn
            where t.job_type = p_job_type and t.workspace_id = v_choice.turn_of;
        end if;
        v_releases := priorityd.put_in_flight(v_lane, v_status, p_daemon_id, p_claim_seconds, p_lease_seconds);
        if v_status = 'processing' then
            return jsonb_build_object('at_work', true, 'promoted', v_choice.promoted);
        end if;
        return jsonb_build_object(
            'job_id', v_lane.head_job_id,
            'job_type', p_job_type,
            'repository_id', v_lane.repository_id,
            'payload', priorityd.write_release(v_lane.head_job_id, v_head.payload, v_lane.priority, v_choice.promoted),
            'tracked', v_head.tracked,
            'priority', v_lane.priority,
            'promoted', v_choice.promoted,
            'waited_seconds', extract(epoch from clock_timestamp() - v_lane.head_queued_at),
            'releases', v_releases,
            'turn', p_turn
        );
    end
    $$;

    -- Releases jobs of a type as long as there is room for them in flight, up to p_limit. p_turn is the number of the last
    -- release. `more`: call again at once.
    create or replace function priorityd.release_jobs_of_type(
        p_type priorityd.job_types,
        p_turn bigint,
        p_in_flight integer,
        p_limit integer,
        p_daemon_id uuid,
        p_promote_after_seconds double precision,
        p_claim_seconds double precision,
        p_lease_seconds double precision,
        out jobs jsonb[],
        out last_turn bigint,
        out more boolean
    )
    language plpgsql as $$
    declare
        v_promoted_last boolean := p_type.promoted_last;
        v_free integer := p_in_flight - (
            select count(*) from priorityd.ordered_jobs o
            where o.job_type = p_type.job_type and o.released_at is not null
        );
        v_job jsonb;
    begin
        jobs := '{}';
        last_turn := p_turn;
        more := false;
        while v_free > 0 and cardinality(jobs) < p_limit loop
            v_job := priorityd.release_next_job(
                p_type.job_type, last_turn + 1, v_promoted_last,
                p_daemon_id, p_promote_after_seconds, p_claim_seconds, p_lease_seconds
            );
            more := v_job ? 'passed_over';
            exit when v_job is null or more;
            last_turn := last_turn + 1;
            v_promoted_last := (v_job ->> 'promoted')::boolean;
            v_free := v_free - 1;
            if v_job ? 'job_id' then
                jobs := jobs || v_job;
            end if;
        end loop;
        more := coalesce(more, false);
        -- Once for all jobs of the type: each of many versions of a row in one transaction would be looked at.
        if last_turn > p_turn then
            update priorityd.job_types k set served = last_turn, promoted_last = v_promoted_last
            where k.job_type = p_type.job_type;
        end if;
    end
    $$;

    create or replace function priorityd.count_jobs_in_flight()
    returns jsonb language sql stable as $$
        select coalesce(jsonb_object_agg(f.released_priority, f.jobs), '{}')
        from (
            select o.released_priority, count(*) as jobs from priorityd.ordered_jobs o
            where o.released_at is not null
            group by o.released_priority
        ) f
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
    returns jsonb language plpgsql
    set search_path = public, extensions
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
        v_queue priorityd.release_state;
        v_lost jsonb;
        v_type priorityd.job_types;
        v_released record;
        v_jobs jsonb[] := '{}';
        v_turn bigint;
        v_more boolean;
    begin
        perform priorityd.check_limit(p_limit);
        if p_daemon_id is null or (p_in_flight >= 1) is not true or (p_promote_after_seconds > 0) is not true
            or (p_claim_seconds >= 1 and p_claim_seconds <= 3600) is not true
            or (p_lease_seconds >= 1 and p_lease_seconds <= 604800) is not true then
            raise exception 'p_daemon_id must be an id, p_in_flight at least 1, p_promote_after_seconds above 0, '
                'p_claim_seconds between 1 and 3600, and p_lease_seconds between 1 and 604800'
                using errcode = 'invalid_parameter_value';
        end if;
        select q.* into v_queue from priorityd.release_state q for no key update skip locked;
        if not found then
            return jsonb_build_object('busy', true, 'more', false, 'jobs', '[]'::jsonb);
        end if;
        v_turn := v_queue.turns;
        v_lost := priorityd.settle_ordered_jobs(p_daemon_id);
        -- Nothing is taken before every hint is followed: the job that one of them tells of may be the first.
        v_more := priorityd.follow_job_hints(c_hints);
        if not v_more then
            for v_type in select k.* from priorityd.job_types k order by k.served, k.job_type loop
                v_released := priorityd.release_jobs_of_type(
                    v_type, v_turn, p_in_flight, p_limit - cardinality(v_jobs),
                    p_daemon_id, p_promote_after_seconds, p_claim_seconds, p_lease_seconds
                );
                v_jobs := v_jobs || v_released.jobs;
                v_turn := v_released.last_turn;
                v_more := v_more or v_released.more or cardinality(v_jobs) = p_limit;
                exit when cardinality(v_jobs) = p_limit;
            end loop;
        end if;
        if v_turn > v_queue.turns or not v_queue.in_use then
            update priorityd.release_state q set turns = v_turn, in_use = true where q.only_row;
        end if;

        return jsonb_build_object(
            'busy', false,
            'more', v_more,
            'jobs', to_jsonb(v_jobs),
            'lost', v_lost,
            'waiting', exists (select from priorityd.job_lanes),
            'in_flight', priorityd.count_jobs_in_flight()
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
