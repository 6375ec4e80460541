-- Releasing ordered jobs. All of this is for the holder of the only row of priorityd.release_state; the order is described
-- at the top of 20250103001200.

do $functions$
begin
    if not priorityd.start_unit('20250103001700 functions', 1, '{20250103001600 functions}', '{release_ordered_jobs}') then
        return;
    end if;

    -- Writes the payloads of released jobs. Jobs that the application's triggers or checks refuse are found as in
    -- insert_job_rows.
    create or replace function priorityd.write_payloads(p_jobs jsonb[], out written jsonb[], out refused jsonb[])
    language plpgsql as $$
    declare
        v_half constant integer := cardinality(p_jobs) / 2;
        v_first record;
        v_second record;
        v_state text;
        v_message text;
    begin
        written := p_jobs;
        refused := '{}';
        if cardinality(p_jobs) = 0 then
            return;
        end if;
        begin
            update public.background_jobs b set payload = j.job -> 'payload'
            from unnest(p_jobs) j (job)
            where b.id = (j.job ->> 'job_id')::uuid;
            perform priorityd.check_deferred();
            return;
        exception
            when others or assert_failure then
                get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
        end;
        perform priorityd.wait_no_more(v_state);
        if cardinality(p_jobs) > 1 then
            v_first := priorityd.write_payloads(p_jobs[:v_half]);
            v_second := priorityd.write_payloads(p_jobs[v_half + 1:]);
            written := v_first.written || v_second.written;
            refused := v_first.refused || v_second.refused;
            return;
        end if;
        written := '{}';
        refused := array[
            jsonb_build_object(
                'job_id', p_jobs[1] -> 'job_id', 'repository_id', p_jobs[1] -> 'repository_id',
                'reason', format('%s (%s)', left(v_message, 300), v_state)
            )
        ];
    end
    $$;

    -- Sets jobs whose rows can't be written aside for a while, after which the application may have been changed.
    create or replace function priorityd.set_aside(p_refused jsonb[])
    returns void language plpgsql as $$
    declare
        c_while constant interval := '1 min';
    begin
        update priorityd.ordered_jobs o
        set released_at = null, daemon_id = null, lease_until = null, releases = o.releases - 1,
            aside_until = clock_timestamp() + c_while
        where o.job_id = any (array(select (r.job ->> 'job_id')::uuid from unnest(p_refused) r (job)));
    end
    $$;

    -- How many more jobs of a type may be in flight. Lost jobs take up no place (see release_lost_jobs). Nor do jobs that
    -- were sent more than 10 s ago and are still `queued`, up to p_in_flight of them: they may be lost too, and their lease
    -- is long. If they only wait in Inngest, at most twice as many jobs as wanted are out of reach.
    create or replace function priorityd.free_places(p_type priorityd.job_types, p_in_flight integer)
    returns bigint language plpgsql stable as $$
    declare
        c_heard_within constant interval := '10 s';
        v_all bigint;
        v_silent bigint;
    begin
        select count(*), count(*) filter (
                where f.sent_at < clock_timestamp() - c_heard_within
                    and (select b.status::text from public.background_jobs b where b.id = f.job_id) = 'queued'
            )
        into v_all, v_silent
        from priorityd.jobs_in_flight(p_type.in_flight) f where f.losses = 0;
        return p_in_flight - v_all + least(v_silent, p_in_flight);
    end
    $$;

    -- Releases jobs of a type, up to p_limit, as long as more may be in flight. p_turn is the number of the last release.
    -- `more`: call again at once.
    create or replace function priorityd.release_jobs_of_type(
        p_type priorityd.job_types,
        p_turn bigint,
        p_limit integer,
        p_terms priorityd.release_terms,
        out jobs jsonb[],
        out refused jsonb[],
        out last_turn bigint,
        out more boolean
    )
    language plpgsql as $$
    declare
        v_free bigint := priorityd.free_places(p_type, p_terms.in_flight);
        v_next record;
        v_at_work uuid[] := '{}';
        v_after priorityd.job_types := p_type;
        v_promoted_last boolean := p_type.promoted_last;
    begin
        jobs := priorityd.release_lost_jobs(p_type, p_turn, p_limit, p_terms);
        last_turn := p_turn;
        more := false;
        while v_free > 0 and cardinality(jobs) < p_limit loop
            v_after.promoted_last := v_promoted_last;
            v_next := priorityd.release_next_job(v_after, last_turn + 1, p_terms);
            more := v_next.job ? 'passed_over';
            exit when v_next.job is null or more;
            if v_next.looks > 1 then
                v_after := priorityd.with_marks(v_after);
            end if;
            last_turn := last_turn + 1;
            v_promoted_last := (v_next.job ->> 'promoted')::boolean;
            v_free := v_free - 1;
            if v_next.job ? 'job_id' then
                jobs := jobs || v_next.job;
            else
                v_at_work := v_at_work || (v_next.job ->> 'at_work')::uuid;
            end if;
        end loop;
        more := coalesce(more, false);
        select w.written, w.refused into jobs, refused from priorityd.write_payloads(jobs) w;
        if refused <> '{}' then
            perform priorityd.set_aside(refused);
        end if;

        -- Once for all jobs of the type: many versions of a row in one transaction would all have to be read.
        select k.* into v_after from priorityd.job_types k where k.job_type = p_type.job_type;
        if last_turn > p_turn then
            v_after.served := last_turn;
            v_after.promoted_last := v_promoted_last;
        end if;
        v_after := priorityd.raise_marks(v_after);
        v_after.in_flight := array(
            select f.job_id from priorityd.jobs_in_flight(
                p_type.in_flight || v_at_work || array(select (j.job ->> 'job_id')::uuid from unnest(jobs) j (job))
            ) f
            order by f.job_id
        );
        if v_after is distinct from p_type then
            update priorityd.job_types k
            set served = v_after.served, promoted_last = v_after.promoted_last, in_flight = v_after.in_flight,
                medium_mark = v_after.medium_mark, low_mark = v_after.low_mark,
                turn_mark = v_after.turn_mark, new_turns = v_after.new_turns
            where k.job_type = p_type.job_type;
        end if;
    end
    $$;

    -- Whether a job waits in any lane.
    create or replace function priorityd.jobs_wait()
    returns boolean language plpgsql stable as $$
    declare
        c_nobody constant text := '';
        v_type priorityd.job_types;
    begin
        for v_type in select k.* from priorityd.job_types k loop
            if (priorityd.next_turn(v_type)).workspace_id is not null
                or (priorityd.first_lane(v_type.job_type, 'medium', c_nobody, v_type.medium_mark)).head_job_id is not null
                or (priorityd.first_lane(v_type.job_type, 'low', c_nobody, v_type.low_mark)).head_job_id is not null then
                return true;
            end if;
        end loop;
        return false;
    end
    $$;

    create or replace function priorityd.check_release_terms(p_terms priorityd.release_terms)
    returns void language plpgsql immutable as $$
    begin
        if p_terms.daemon_id is null
            or (p_terms.in_flight between 1 and 10000) is not true
            or (p_terms.promote_after_seconds > 0 and p_terms.promote_after_seconds <= 31622400) is not true
            or (p_terms.claim_seconds between 1 and 3600) is not true
            or (p_terms.lease_seconds between 1 and 604800) is not true
            or (p_terms.most_leases between 1 and 1000) is not true then
            raise exception 'p_daemon_id must be an id, p_in_flight between 1 and 10000, p_promote_after_seconds above 0 and '
                'at most 31622400, p_claim_seconds between 1 and 3600, p_lease_seconds between 1 and 604800, and '
                'p_most_leases between 1 and 1000'
                using errcode = 'invalid_parameter_value';
        end if;
    end
    $$;

    -- For how long a release declares that jobs are being released.
    create or replace function priorityd.release_ahead()
    returns interval language sql immutable as $$ select interval '5 min' $$;

    -- How long ago a daemon last asked for jobs, to within a minute; null if none ever has.
    create or replace function priorityd.release_asked_seconds()
    returns double precision language sql volatile as $$
        select extract(epoch from clock_timestamp() + priorityd.release_ahead() - q.released_until)
        from (select nullif(s.released_until, '-infinity') as released_until from priorityd.release_state s) q
    $$;

    -- Declares that jobs are being released, for some minutes from now. After a pause, in which no hints were left, lanes may
    -- be anywhere. So hints are left at all misplaced lanes, up to p_limit: right then, and again when the transactions that
    -- were open at the declaration have ended. `more`: there may be others.
    create or replace function priorityd.renew_releases(p_queue priorityd.release_state, p_limit integer, out more boolean)
    language plpgsql as $$
    declare
        c_ahead constant interval := priorityd.release_ahead();
        -- Longer than any release takes: one that ended after released_until would leave a gap.
        c_least constant interval := '1 min';
        v_now constant timestamptz := clock_timestamp();
        v_open xid8[] := array(select pg_snapshot_xip(pg_current_snapshot()));
        v_paused constant boolean := p_queue.released_until not between v_now + c_least and v_now + c_ahead;
    begin
        more := false;
        if v_paused or p_queue.released_until < v_now + c_ahead - c_least then
            p_queue.released_until := v_now + c_ahead;
            p_queue.unhinted := case when not v_paused then p_queue.unhinted end;
            update priorityd.release_state q set released_until = p_queue.released_until, unhinted = p_queue.unhinted
            where q.only_row;
        end if;
        if p_queue.unhinted is not null then
            v_open := array(select u.id from unnest(p_queue.unhinted) u (id) where u.id = any (v_open));
            if cardinality(v_open) = cardinality(p_queue.unhinted) then
                return;
            end if;
        end if;
        more := (priorityd.hint_at_misplaced_lanes(p_limit)).misplaced = p_limit;
        if not (more or v_paused) then
            update priorityd.release_state q set unhinted = v_open where q.only_row;
        end if;
    end
    $$;

    -- How many jobs are in flight, by their priority at release, and how many are lost.
    create or replace function priorityd.count_flight(out in_flight jsonb, out lost bigint)
    language plpgsql stable as $$
    begin
        select coalesce(jsonb_object_agg(f.released_priority, f.jobs), '{}') into in_flight
        from (
            select o.released_priority, count(*) as jobs from priorityd.jobs_in_flight(priorityd.ids_in_flight()) o
            where o.losses = 0
            group by o.released_priority
        ) f;
        lost := (select count(*) from priorityd.jobs_in_flight(priorityd.ids_in_flight()) o where o.losses > 0)
            + (
                select count(*) from priorityd.job_types k
                join priorityd.ordered_jobs a on a.job_type = k.job_type and a.aside_until is not null
                where a.losses > 0
            );
    end
    $$;

    -- Releases up to p_limit jobs to this daemon, which must send them and then report it (mark_jobs_sent) within
    -- p_claim_seconds; after that they count as not sent. At most p_in_flight jobs of each type are in flight, and in addition
    -- up to the same number that have not been reported as started within 10 s. A job in flight is lost if p_lease_seconds
    -- have passed since it was sent without a report: then it is released again, in addition to the others, until this has
    -- happened p_most_leases times and it ends as failed (`given_up`).
    -- `busy`: another release is under way. `more`: call again at once. `refused` jobs could not be written, and wait.
    create or replace function public.release_ordered_jobs(
        p_daemon_id uuid,
        p_in_flight integer,
        p_limit integer default 100,
        p_promote_after_seconds double precision default 72000,
        p_claim_seconds double precision default 60,
        p_lease_seconds double precision default 3600,
        p_most_leases integer default 3
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '2s'
    set statement_timeout = '20s'
    set jit = off
    -- Every search reads one end of an index. The planner's statistics of tables that fill and empty within seconds are
    -- wrong more often than right.
    set enable_seqscan = off
    set enable_bitmapscan = off
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        c_hints constant integer := 10000;
        v_terms constant priorityd.release_terms := row(
            p_daemon_id, p_in_flight, p_promote_after_seconds, p_claim_seconds, p_lease_seconds, p_most_leases
        );
        v_queue priorityd.release_state;
        v_unhinted boolean;
        v_lost jsonb;
        v_given_up uuid[];
        v_hints record;
        v_type priorityd.job_types;
        v_released record;
        v_jobs jsonb[] := '{}';
        v_refused jsonb[] := '{}';
        v_turn bigint;
        v_more boolean;
        v_flight record;
    begin
        perform priorityd.check_limit(p_limit);
        perform priorityd.check_release_terms(v_terms);
        select q.* into v_queue from priorityd.release_state q for no key update skip locked;
        if not found then
            return jsonb_build_object('busy', true, 'more', false, 'jobs', '[]'::jsonb);
        end if;
        begin
            perform priorityd.check_job_table();
        exception
            when invalid_parameter_value then
                if exists (select from priorityd.ordered_jobs) then
                    raise;
                end if;
                -- Without ordered jobs, background_jobs may have any shape.
                return '{"busy": false, "more": false, "jobs": [], "refused": [], "lost": {}, "given_up": [],
                    "waiting": false, "in_flight": {}, "lost_now": 0}';
        end;
        v_turn := v_queue.turns;
        perform priorityd.forget_ended_jobs();
        v_lost := priorityd.end_leases(v_terms);
        v_given_up := priorityd.give_up_lost_jobs(v_terms);
        v_unhinted := priorityd.renew_releases(v_queue, c_hints);
        -- Nothing is taken before every hint has been followed: one of them may lead to the job that comes first.
        v_hints := priorityd.follow_job_hints(v_queue, c_hints);
        v_more := v_hints.more or v_unhinted;
        if not v_more then
            for v_type in select k.* from priorityd.job_types k order by k.served, k.job_type loop
                v_released := priorityd.release_jobs_of_type(v_type, v_turn, p_limit - cardinality(v_jobs), v_terms);
                v_jobs := v_jobs || v_released.jobs;
                v_refused := v_refused || v_released.refused;
                v_turn := v_released.last_turn;
                v_more := v_more or v_released.more or cardinality(v_jobs) = p_limit;
                exit when cardinality(v_jobs) = p_limit;
            end loop;
        end if;
        if v_turn > v_queue.turns or v_hints.seen is not null then
            update priorityd.release_state q
            set turns = v_turn, hints_followed = coalesce(v_hints.seen, q.hints_followed),
                followed_by = case when v_hints.seen is null then q.followed_by else pg_current_xact_id() end
            where q.only_row;
        end if;

        v_flight := priorityd.count_flight();
        return jsonb_build_object(
            'busy', false,
            'more', v_more,
            'jobs', to_jsonb(v_jobs),
            'refused', priorityd.named_jobs(v_refused),
            'lost', v_lost,
            'given_up', priorityd.named_jobs(array(select jsonb_build_object('job_id', g) from unnest(v_given_up) g)),
            'waiting', priorityd.jobs_wait(),
            'in_flight', v_flight.in_flight,
            'lost_now', v_flight.lost
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
