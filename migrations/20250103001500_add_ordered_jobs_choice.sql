-- Choosing the next ordered job, and taking it out of its lane. Only for the holder of the release's row; the order is
-- described at the top of 20250103001200.

do $functions$
begin
    if not priorityd.start_unit('20250103001500 functions', 1, '{20250103001400 functions}') then
        return;
    end if;

    -- The priority that the next job of a type is taken from, and whether that is a promotion; core/jobs/release_policy.py
    -- explains it. Arguments: whether a high job waits, how long the oldest medium and low ones have waited (null: no
    -- job waits), and whether the last release of this type was a promotion. `priority` is null if no job waits.
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

    -- The lane with the oldest head, of a priority and in the line of a workspace; no head is older than p_mark.
    create or replace function priorityd.first_lane(
        p_job_type text, p_priority text, p_workspace_id text, p_mark timestamptz
    )
    returns priorityd.job_lanes language plpgsql stable as $$
    declare
        v_lane priorityd.job_lanes;
    begin
        select l.* into v_lane from priorityd.job_lanes l
        where l.job_type = p_job_type and l.priority = p_priority and l.workspace_id = p_workspace_id
            and l.head_queued_at >= p_mark
        order by l.head_queued_at, l.head_number
        limit 1;
        return v_lane;
    end
    $$;

    -- Of the workspaces in line for a type, the one whose last turn is longest ago.
    create or replace function priorityd.next_turn(p_type priorityd.job_types)
    returns priorityd.job_turns language plpgsql stable as $$
    declare
        v_turn priorityd.job_turns;
    begin
        if p_type.new_turns then
            select t.* into v_turn from priorityd.job_turns t
            where t.job_type = p_type.job_type and t.active and t.served = 0
            order by t.workspace_id
            limit 1;
        end if;
        if v_turn.workspace_id is null then
            select t.* into v_turn from priorityd.job_turns t
            where t.job_type = p_type.job_type and t.active and t.served >= greatest(p_type.turn_mark, 1)
            order by t.served, t.workspace_id
            limit 1;
        end if;
        return v_turn;
    end
    $$;

    -- The type with its marks raised to where there is something to find now.
    create or replace function priorityd.raise_marks(p_type priorityd.job_types)
    returns priorityd.job_types language plpgsql stable as $$
    declare
        c_nobody constant text := '';
        v_turn priorityd.job_turns;
    begin
        p_type.medium_mark := coalesce(
            (priorityd.first_lane(p_type.job_type, 'medium', c_nobody, p_type.medium_mark)).head_queued_at, 'infinity');
        p_type.low_mark := coalesce(
            (priorityd.first_lane(p_type.job_type, 'low', c_nobody, p_type.low_mark)).head_queued_at, 'infinity');
        v_turn := priorityd.next_turn(p_type);
        p_type.new_turns := coalesce(v_turn.served = 0, false);
        if not p_type.new_turns then
            p_type.turn_mark := coalesce(v_turn.served, p_type.served);
        end if;
        return p_type;
    end
    $$;

    -- The type with its current marks, which a correction may have lowered.
    create or replace function priorityd.with_marks(p_type priorityd.job_types)
    returns priorityd.job_types language plpgsql stable as $$
    begin
        select k.medium_mark, k.low_mark, k.turn_mark, k.new_turns
        into p_type.medium_mark, p_type.low_mark, p_type.turn_mark, p_type.new_turns
        from priorityd.job_types k where k.job_type = p_type.job_type;
        return p_type;
    end
    $$;

    -- The lane from which the next job of a type is taken, null if no job waits. `turn` is the turn that a high job uses up.
    -- `again`: something was corrected on the way, so choose again.
    create or replace function priorityd.choose_lane(
        p_type priorityd.job_types,
        p_promote_after_seconds double precision,
        out lane priorityd.job_lanes,
        out turn priorityd.job_turns,
        out promoted boolean,
        out again boolean
    )
    language plpgsql as $$
    declare
        c_nobody constant text := '';
        v_now constant timestamptz := clock_timestamp();
        v_high priorityd.job_lanes;
        v_medium constant priorityd.job_lanes := priorityd.first_lane(
            p_type.job_type, 'medium', c_nobody, p_type.medium_mark);
        v_low constant priorityd.job_lanes := priorityd.first_lane(p_type.job_type, 'low', c_nobody, p_type.low_mark);
        v_choice record;
    begin
        again := false;
        turn := priorityd.next_turn(p_type);
        if turn.workspace_id is not null then
            v_high := priorityd.first_lane(p_type.job_type, 'high', turn.workspace_id, turn.line_mark);
            if v_high.head_job_id is null then
                update priorityd.job_turns t set active = false
                where t.job_type = p_type.job_type and t.workspace_id = turn.workspace_id and t.served = turn.served;
                again := true;
                return;
            end if;
        end if;
        select c.priority, c.promoted into v_choice
        from priorityd.choose_job_priority(
            v_high.head_job_id is not null,
            extract(epoch from v_now - v_medium.head_queued_at),
            extract(epoch from v_now - v_low.head_queued_at),
            p_type.promoted_last,
            p_promote_after_seconds
        ) c;
        promoted := v_choice.promoted;
        if promoted then
            again := priorityd.correct_job_lane(case when v_high.head_job_id is null then v_medium else v_high end);
        end if;
        lane := case v_choice.priority when 'high' then v_high when 'medium' then v_medium when 'low' then v_low end;
    end
    $$;

    -- The payload of a job, null if jsonb can't hold it.
    create or replace function priorityd.read_payload(p_job_id uuid)
    returns jsonb language plpgsql stable as $$
    begin
        return (
            select case when b.payload is null then '{}' else priorityd.parsed_payload(b.payload) end
            from public.background_jobs b where b.id = p_job_id
        );
    end
    $$;

    -- Locks a job, and returns its status (null if it can't be taken) and its payload. A job that has ended is taken off the
    -- list (`gone`); so is one whose payload can't be read, which fails it. A job that is locked is not waited for.
    create or replace function priorityd.take_job(p_job_id uuid, out status text, out payload jsonb, out gone boolean)
    language plpgsql as $$
    begin
        gone := false;
        select b.status::text into status from public.background_jobs b
        where b.id = p_job_id
        for no key update skip locked;
        if status in ('queued', 'processing') then
            payload := priorityd.read_payload(p_job_id);
            if payload is not null then
                return;
            end if;
            perform priorityd.end_jobs(array[p_job_id], array['its payload can''t be read'], 'failed');
        elsif status is null and exists (select from public.background_jobs b where b.id = p_job_id) then
            return;
        end if;
        delete from priorityd.ordered_jobs o where o.job_id = p_job_id;
        gone := true;
        status := null;
    end
    $$;

    -- The current tracked row.
    create or replace function priorityd.tracked_row(p_repository_id uuid)
    returns jsonb language plpgsql stable as $$
    begin
        return (select to_jsonb(t) - 'repository_id' from priorityd.tracked_rows_of(array[p_repository_id]) t);
    end
    $$;

    -- Locks the head of a lane. `status` is null if it can't be taken; the cause has then been corrected: the lane was too
    -- high, or the job had ended before its turn. If the job is locked, its repository's jobs are left for the next release.
    create or replace function priorityd.take_head(
        p_lane priorityd.job_lanes, out status text, out payload jsonb, out tracked jsonb
    )
    language plpgsql as $$
    declare
        v_job record;
    begin
        -- The current row: it may have changed without a hint since the lane was placed.
        tracked := priorityd.tracked_row(p_lane.repository_id);
        if priorityd.job_priority(tracked ->> 'priority', (tracked ->> 'is_workspace_repo')::boolean) <> p_lane.priority then
            perform priorityd.place_job_lanes(array[p_lane.job_type], array[p_lane.repository_id]);
            return;
        end if;
        v_job := priorityd.take_job(p_lane.head_job_id);
        status := v_job.status;
        payload := v_job.payload;
        if v_job.gone then
            perform priorityd.advance_job_lane(p_lane);
        elsif status is null then
            delete from priorityd.job_lanes l
            where l.job_type = p_lane.job_type and l.repository_id = p_lane.repository_id
                and l.head_number = p_lane.head_number;
            perform priorityd.leave_job_hints(array[p_lane.job_type], array[p_lane.repository_id]);
        end if;
    end
    $$;

    -- Puts a job in flight, and returns its new row. A job that has already started counts as sent.
    create or replace function priorityd.put_in_flight(
        p_job_id uuid, p_priority text, p_at_work boolean, p_terms priorityd.release_terms
    )
    returns priorityd.ordered_jobs language plpgsql as $$
    declare
        v_now constant timestamptz := clock_timestamp();
        v_job priorityd.ordered_jobs;
    begin
        update priorityd.ordered_jobs o
        set released_at = v_now, daemon_id = p_terms.daemon_id, released_priority = p_priority, aside_until = null,
            releases = o.releases + case when p_at_work then 0 else 1 end,
            sent_at = case when p_at_work then v_now end,
            lease_until = v_now + make_interval(
                secs => case when p_at_work then p_terms.lease_seconds else p_terms.claim_seconds end
            )
        where o.job_id = p_job_id
        returning o.* into v_job;
        return v_job;
    end
    $$;

    -- A released job, as release_ordered_jobs returns it. From now on its payload says with which priority it was released
    -- (until now that was its repository's), and whether it was promoted.
    create or replace function priorityd.describe_release(
        p_job priorityd.ordered_jobs, p_payload jsonb, p_tracked jsonb, p_promoted boolean, p_turn bigint
    )
    returns jsonb language plpgsql stable as $$
    begin
        return jsonb_build_object(
            'job_id', p_job.job_id,
            'job_type', p_job.job_type,
            'repository_id', p_job.repository_id,
            'payload', case when jsonb_typeof(p_payload) = 'object' then p_payload else '{}' end || jsonb_build_object(
                'priority', priorityd.score(p_job.released_priority),
                'metadata', coalesce(p_payload -> 'metadata', '{}') || jsonb_build_object('promoted', p_promoted)
            ),
            'tracked', p_tracked,
            'priority', p_job.released_priority,
            'promoted', p_promoted,
            'waited_seconds', extract(epoch from clock_timestamp() - p_job.queued_at),
            'releases', p_job.releases,
            'losses', p_job.losses,
            'event_id', p_job.event_id,
            'turn', p_turn
        );
    end
    $$;

    -- Takes the next job of a type out of its lane; null if no job can be taken. `looks` is how many lanes were tried. A job
    -- that has already started (its event was accepted although sending it seemed to fail) is put in flight without being
    -- sent again: then the answer has no `job_id`. p_turn is the number of this release.
    create or replace function priorityd.release_next_job(
        p_type priorityd.job_types, p_turn bigint, p_terms priorityd.release_terms, out job jsonb, out looks integer
    )
    language plpgsql as $$
    declare
        -- There may be many cancelled jobs; the next release goes on.
        c_most_passed_over constant integer := 1000;
        v_choice record;
        v_lane priorityd.job_lanes;
        v_head record;
        v_job priorityd.ordered_jobs;
    begin
        for i in 1..c_most_passed_over loop
            looks := i;
            if i > 1 then
                p_type := priorityd.with_marks(p_type);
            end if;
            v_choice := priorityd.choose_lane(p_type, p_terms.promote_after_seconds);
            continue when v_choice.again;
            v_lane := v_choice.lane;
            if v_lane.head_job_id is null then
                return;
            end if;
            v_head := priorityd.take_head(v_lane);
            exit when v_head.status is not null;
        end loop;
        if v_head is null or v_head.status is null then
            job := '{"passed_over": true}';
            return;
        end if;

        if v_lane.priority = 'high' then
            update priorityd.job_turns t set served = p_turn, line_mark = v_lane.head_queued_at
            where t.job_type = p_type.job_type and t.workspace_id = (v_choice.turn).workspace_id
                and t.served = (v_choice.turn).served;
        end if;
        v_job := priorityd.put_in_flight(v_lane.head_job_id, v_lane.priority, v_head.status = 'processing', p_terms);
        perform priorityd.advance_job_lane(v_lane);
        job := case v_head.status
            when 'processing' then jsonb_build_object('at_work', v_job.job_id, 'promoted', v_choice.promoted)
            else priorityd.describe_release(v_job, v_head.payload, v_head.tracked, v_choice.promoted, p_turn)
        end;
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
