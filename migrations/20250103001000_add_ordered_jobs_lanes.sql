-- The lanes of ordered jobs: where each stands in the order. How they stay true is told at the top of 20250103000900.

do $functions$
begin
    if not priorityd.start_unit('20250103001000 functions', 1, '{20250103000900 functions}') then
        return;
    end if;

    -- A change of priority or flag moves the lanes of its repository. A trigger, but on our own table: whatever writes
    -- the trail leaves the hint, and the application's tables are left alone.
    create or replace function priorityd.hint_at_job_lanes()
    returns trigger language plpgsql as $$
    begin
        -- Where nobody has ever used ordered jobs, nobody would take the hints away.
        if exists (select from priorityd.release_state q where q.in_use) then
            insert into priorityd.job_hints (repository_id)
            select distinct c.repository_id from changes c where c.repository_id is not null;
        end if;
        return null;
    end
    $$;

    perform set_config('lock_timeout', '1s', true);
    if not exists (
        select from pg_trigger t
        where t.tgrelid = 'public.repository_priority_changes'::regclass and t.tgname = 'hint_at_job_lanes'
    ) then
        create trigger hint_at_job_lanes after insert on public.repository_priority_changes
        referencing new table as changes
        for each statement execute function priorityd.hint_at_job_lanes();
    end if;

    -- The priority of a repository's jobs now.
    create or replace function priorityd.current_job_priority(p_repository_id uuid)
    returns text language plpgsql stable as $$
    declare
        v_tracked record;
    begin
        select tr.priority, tr.is_workspace_repo into v_tracked
        from public.tracked_repositories tr
        where tr.repository_id = p_repository_id
        order by tr.id
        limit 1;
        return priorityd.job_priority(v_tracked.priority::text, v_tracked.is_workspace_repo);
    end
    $$;

    -- The workspaces in whose lines a high repository stands: whichever has its turn first takes it, and no other turn is
    -- used up by it. Only the first 16, so that a repository that thousands hold costs no more; the workspace ''
    -- for one that nobody holds.
    create or replace function priorityd.workspaces_in_line(p_repository_id uuid)
    returns text[] language plpgsql stable as $$
    declare
        c_nobody constant text := '';
        c_most constant integer := 16;
        v_workspaces text[] := array(
            select w.workspace_id::text
            from (
                select distinct m.workspace_id from priorityd.memberships() m
                where m.repository_id = p_repository_id
                order by m.workspace_id
                limit c_most
            ) w
            order by w.workspace_id::text collate "C"
        );
    begin
        return case when v_workspaces = '{}' then array[c_nobody] else v_workspaces end;
    end
    $$;

    -- Makes the lanes of these (job type, repository) pairs what they should be. For the holder of the queue's row only.
    create or replace function priorityd.place_job_lanes(p_job_types text[], p_repository_ids uuid[])
    returns void language plpgsql as $$
    declare
        c_nobody constant text := '';
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
                from priorityd.ordered_jobs o
                where o.job_type = n.job_type and o.repository_id = n.repository_id and o.released_at is null
                order by o.queued_at, o.number
                limit 1
            ) h
        ),
        lines as materialized (
            select p.repository_id, p.priority, w.workspace_id
            from (
                select r.repository_id, priorityd.current_job_priority(r.repository_id) as priority
                from (select distinct h.repository_id from heads h) r
            ) p
            cross join lateral unnest(
                case when p.priority = 'high' then priorityd.workspaces_in_line(p.repository_id) else array[c_nobody] end
            ) w (workspace_id)
        ),
        gone as (
            delete from priorityd.job_lanes l
            using named n
            where l.job_type = n.job_type and l.repository_id = n.repository_id
                and not exists (
                    select from heads h join lines s on s.repository_id = h.repository_id
                    where h.job_type = l.job_type and h.repository_id = l.repository_id
                        and s.workspace_id = l.workspace_id
                )
        ),
        placed as (
            insert into priorityd.job_lanes as l (
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
        insert into priorityd.job_turns as t (job_type, workspace_id)
        select distinct h.job_type, s.workspace_id
        from heads h
        join lines s on s.repository_id = h.repository_id
        where s.priority = 'high'
        on conflict (job_type, workspace_id) do update set active = true where not t.active;
    end
    $$;

    -- Follows the oldest hints, at most p_limit different ones; whether there were more. For the holder of the queue's row
    -- only.
    create or replace function priorityd.follow_job_hints(p_limit integer)
    returns boolean language plpgsql as $$
    declare
        -- Many of the hints of a busy time are the same, and the same once is enough.
        c_repeats constant integer := 5;
        v_ids bigint[];
        v_hints priorityd.job_hints[];
        v_job_types text[];
        v_repository_ids uuid[];
    begin
        v_hints := array(
            select h from priorityd.job_hints h order by h.id limit p_limit * c_repeats + 1
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
            join priorityd.job_types k on k.job_type = coalesce(c.job_type, k.job_type)
        )
        select (select array_agg(c.id) from chosen c), array_agg(e.job_type), array_agg(e.repository_id)
        into v_ids, v_job_types, v_repository_ids
        from expanded e;
        delete from priorityd.job_hints h where h.id = any (v_ids);
        perform priorityd.place_job_lanes(v_job_types, v_repository_ids);
        return cardinality(v_hints) > cardinality(v_ids);
    end
    $$;

    -- Puts the next job of a lane at its head after the first one has been taken, or ends the lane: what
    -- place_job_lanes would do if nothing else had changed, at a fifth of its cost. For the holder of the queue's row only.
    create or replace function priorityd.advance_job_lane(p_job_type text, p_repository_id uuid)
    returns void language plpgsql as $$
    declare
        v_next record;
    begin
        select o.queued_at, o.number, o.job_id into v_next
        from priorityd.ordered_jobs o
        where o.job_type = p_job_type and o.repository_id = p_repository_id and o.released_at is null
        order by o.queued_at, o.number
        limit 1;
        if found then
            update priorityd.job_lanes l
            set head_queued_at = v_next.queued_at, head_number = v_next.number, head_job_id = v_next.job_id
            where l.job_type = p_job_type and l.repository_id = p_repository_id;
        else
            delete from priorityd.job_lanes l
            where l.job_type = p_job_type and l.repository_id = p_repository_id;
        end if;
    end
    $$;

    -- Puts right a lane whose place or head has been changed behind our back; whether there was anything to do. Asked
    -- before its head is passed over by a promotion: one that is over, or no longer higher, is not passed over. For the
    -- holder of the queue's row only.
    create or replace function priorityd.mend_job_lane(
        p_job_type text,
        p_repository_id uuid,
        p_priority text,
        p_head_job_id uuid
    )
    returns boolean language plpgsql as $$
    begin
        if priorityd.current_job_priority(p_repository_id) <> p_priority then
            perform priorityd.place_job_lanes(array[p_job_type], array[p_repository_id]);
            return true;
        end if;
        if exists (
            select from public.background_jobs b
            where b.id = p_head_job_id and b.status::text in ('queued', 'processing')
        ) then
            return false;
        end if;
        delete from priorityd.ordered_jobs o where o.job_id = p_head_job_id;
        perform priorityd.advance_job_lane(p_job_type, p_repository_id);
        return true;
    end
    $$;

    -- Takes jobs in flight that are over off the list, and those whose lease has ended back into their lanes; with
    -- them what this daemon took and did not send, for it asks for more only when it has nothing in hand: it never got
    -- the answer. For the holder of the queue's row only. Rows that somebody is writing are left for the next time. The
    -- answer counts, by the priority that they went with, those that were sent and that nobody has reported on: lost.
    create or replace function priorityd.settle_ordered_jobs(p_daemon_id uuid)
    returns jsonb language plpgsql as $$
    declare
        v_now timestamptz := clock_timestamp();
        v_ids uuid[];
        v_job_types text[];
        v_repository_ids uuid[];
        v_lost jsonb;
    begin
        -- Ids first, then rows by their ids: as one statement each would be a join, and planned as if it were large.
        v_ids := array(
            select f.job_id from priorityd.ordered_jobs f
            where f.released_at is not null
                -- One look-up each: there are few, however large background_jobs is. Null: deleted.
                and coalesce((select b.status::text from public.background_jobs b where b.id = f.job_id), 'deleted')
                    not in ('queued', 'processing')
            for update skip locked
        );
        delete from priorityd.ordered_jobs o where o.job_id = any (v_ids);

        v_ids := array(
            select f.job_id from priorityd.ordered_jobs f
            where f.released_at is not null
                and (f.lease_until <= v_now or (f.daemon_id = p_daemon_id and f.sent_at is null))
            for update skip locked
        );
        if v_ids = '{}' then
            return '{}';
        end if;
        with ended as (
            select f.job_id, f.sent_at from priorityd.ordered_jobs f where f.job_id = any (v_ids)
        ),
        returned as (
            update priorityd.ordered_jobs o
            set released_at = null, daemon_id = null, sent_at = null, lease_until = null
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
        perform priorityd.place_job_lanes(v_job_types, v_repository_ids);
        return coalesce(v_lost, '{}');
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
