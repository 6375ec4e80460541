-- The lanes of ordered jobs: their places in the order. 20250103001200 describes how they are kept correct.

do $functions$
begin
    if not priorityd.start_unit('20250103001400 functions', 1, '{20250103001300 functions}') then
        return;
    end if;

    -- A change of priority or flag moves the lanes of its repository. This is a trigger on our own table: whatever writes
    -- to the trail leaves the hint, and the application's tables are not touched.
    create or replace function priorityd.hint_at_job_lanes()
    returns trigger language plpgsql as $$
    begin
        perform priorityd.leave_job_hints(null, array(select c.repository_id from changes c));
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

    -- The current priority of a repository's jobs.
    create or replace function priorityd.current_job_priority(p_repository_id uuid)
    returns text language plpgsql stable as $$
    begin
        return coalesce((select p.priority from priorityd.job_priorities(array[p_repository_id]) p), 'medium');
    end
    $$;

    -- The workspaces in whose lines a high repository stands: the one that has its turn first takes it, which uses up no
    -- other turn. Only the first 16, so that a repository held by thousands costs no more; the workspace '' if none holds
    -- it.
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

    -- Places the lanes of these (job type, repository) pairs where they should be. Only for the holder of the release's row.
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
                where o.job_type = n.job_type and o.repository_id = n.repository_id
                    and o.released_at is null and o.aside_until is null
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
        moved as (
            update priorityd.job_lanes l
            set priority = s.priority, head_queued_at = h.queued_at, head_number = h.number, head_job_id = h.job_id
            from heads h
            join lines s on s.repository_id = h.repository_id
            where l.job_type = h.job_type and l.repository_id = h.repository_id and l.workspace_id = s.workspace_id
                and (l.priority, l.head_queued_at, l.head_job_id) is distinct from (s.priority, h.queued_at, h.job_id)
        ),
        placed as (
            insert into priorityd.job_lanes (
                job_type, repository_id, workspace_id, priority, head_queued_at, head_number, head_job_id
            )
            select h.job_type, h.repository_id, s.workspace_id, s.priority, h.queued_at, h.number, h.job_id
            from heads h
            join lines s on s.repository_id = h.repository_id
            where not exists (
                select from priorityd.job_lanes l
                where l.job_type = h.job_type and l.repository_id = h.repository_id and l.workspace_id = s.workspace_id
            )
        ),
        wanted as materialized (
            select w.job_type, w.workspace_id, w.oldest, t.served, t.active, t.line_mark
            from (
                select h.job_type, s.workspace_id, min(h.queued_at) as oldest
                from heads h
                join lines s on s.repository_id = h.repository_id
                where s.priority = 'high'
                group by h.job_type, s.workspace_id
            ) w
            left join lateral (
                select o.served, o.active, o.line_mark from priorityd.job_turns o
                where o.job_type = w.job_type and o.workspace_id = w.workspace_id
                order by o.served desc
                limit 1
            ) t on true
        ),
        turned as (
            update priorityd.job_turns t set active = true, line_mark = least(w.line_mark, w.oldest)
            from wanted w
            where t.job_type = w.job_type and t.workspace_id = w.workspace_id and t.served = w.served
                and (not w.active or w.line_mark > w.oldest)
            returning t.job_type, t.served
        ),
        turned_first as (
            insert into priorityd.job_turns as t (job_type, workspace_id, line_mark)
            select w.job_type, w.workspace_id, w.oldest from wanted w where w.served is null
            returning t.job_type, t.served
        ),
        marks as (
            select m.job_type, min(m.medium) as medium, min(m.low) as low, min(m.served) as served,
                coalesce(bool_or(m.is_new), false) as new_turns
            from (
                select h.job_type, case when s.priority = 'medium' then h.queued_at end as medium,
                    case when s.priority = 'low' then h.queued_at end as low, null::bigint as served, null::boolean as is_new
                from heads h
                join lines s on s.repository_id = h.repository_id
                union all
                select t.job_type, null, null, nullif(t.served, 0), t.served = 0
                from (select * from turned union all select * from turned_first) t
            ) m
            group by m.job_type
        )
        update priorityd.job_types k
        set medium_mark = least(k.medium_mark, m.medium), low_mark = least(k.low_mark, m.low),
            turn_mark = least(k.turn_mark, m.served), new_turns = k.new_turns or m.new_turns
        from marks m
        where m.job_type = k.job_type
            and (m.medium < k.medium_mark or m.low < k.low_mark or m.served < k.turn_mark or (m.new_turns and not k.new_turns));
    end
    $$;

    -- The hints to follow, at most p_limit of them, and the snapshot in which they were found.
    create or replace function priorityd.next_job_hints(
        p_queue priorityd.release_state, p_limit integer, out ids bigint[], out seen pg_snapshot
    )
    language plpgsql stable as $$
    begin
        seen := pg_current_snapshot();
        ids := array(
            select h.id
            from priorityd.unfollowed_transactions(p_queue) r
            cross join lateral (
                select o.id from priorityd.job_hints o
                where o.left_by between r.first and r.last
                order by o.left_by, o.id
                limit p_limit
            ) h
            order by r.first
            limit p_limit
        );
    end
    $$;

    -- Deletes hints that have been followed, except those that are locked: they must be followed again.
    create or replace function priorityd.forget_job_hints(p_ids bigint[])
    returns void language plpgsql as $$
    declare
        v_free constant bigint[] := array(
            select h.id from priorityd.job_hints h where h.id = any (p_ids) for update skip locked
        );
    begin
        delete from priorityd.job_hints h where h.id = any (v_free);
        if cardinality(v_free) < cardinality(p_ids) then
            update priorityd.job_hints h set left_by = pg_current_xact_id() where h.id = any (p_ids) and h.id <> all (v_free);
        end if;
    end
    $$;

    -- Follows hints, at most p_limit different ones. `more`: there are others; if not, and if any were followed, `seen` is
    -- the snapshot in which they were found. Only for the holder of the release's row.
    create or replace function priorityd.follow_job_hints(
        p_queue priorityd.release_state, p_limit integer, out more boolean, out seen pg_snapshot
    )
    language plpgsql as $$
    declare
        -- At busy times many hints are the same, and following one of them is enough.
        c_repeats constant integer := 5;
        v_next record;
        v_ids bigint[];
        v_job_types text[];
        v_repository_ids uuid[];
    begin
        v_next := priorityd.next_job_hints(p_queue, p_limit * c_repeats + 1);
        more := false;
        if v_next.ids = '{}' then
            return;
        end if;
        with numbered as (
            select h.id, dense_rank() over (order by h.first_id) as n, h.job_type, h.repository_id
            from (
                select g.id, g.job_type, g.repository_id,
                    min(g.id) over (partition by g.job_type, g.repository_id) as first_id
                from unnest(v_next.ids[:p_limit * c_repeats]) u (id)
                join priorityd.job_hints g on g.id = u.id
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
        perform priorityd.forget_job_hints(v_ids);
        perform priorityd.place_job_lanes(v_job_types, v_repository_ids);
        more := cardinality(v_next.ids) > cardinality(v_ids);
        if not more then
            seen := v_next.seen;
        end if;
    end
    $$;

    -- Puts the next job of a lane at its head after the first one has been taken, or ends the lane: what
    -- place_job_lanes would do if nothing else had changed, at a fifth of the cost. Only for the holder of the release's row.
    create or replace function priorityd.advance_job_lane(p_lane priorityd.job_lanes)
    returns void language plpgsql as $$
    declare
        v_next record;
    begin
        select o.queued_at, o.number, o.job_id into v_next
        from priorityd.ordered_jobs o
        where o.job_type = p_lane.job_type and o.repository_id = p_lane.repository_id
            and o.released_at is null and o.aside_until is null
            and (o.queued_at, o.number) >= (p_lane.head_queued_at, p_lane.head_number)
        order by o.queued_at, o.number
        limit 1;
        if found then
            update priorityd.job_lanes l
            set head_queued_at = v_next.queued_at, head_number = v_next.number, head_job_id = v_next.job_id
            where l.job_type = p_lane.job_type and l.repository_id = p_lane.repository_id
                and l.head_number = p_lane.head_number;
        else
            delete from priorityd.job_lanes l
            where l.job_type = p_lane.job_type and l.repository_id = p_lane.repository_id
                and l.head_number = p_lane.head_number;
        end if;
    end
    $$;

    -- Corrects a lane whose place or head has changed without a hint, and returns whether it had. Called before a promotion
    -- passes over the lane's head: a job that has ended, or is no longer higher, is not passed over. Only for the holder of
    -- the release's row.
    create or replace function priorityd.correct_job_lane(p_lane priorityd.job_lanes)
    returns boolean language plpgsql as $$
    begin
        if priorityd.current_job_priority(p_lane.repository_id) <> p_lane.priority then
            perform priorityd.place_job_lanes(array[p_lane.job_type], array[p_lane.repository_id]);
            return true;
        end if;
        if exists (
            select from public.background_jobs b
            where b.id = p_lane.head_job_id and b.status::text in ('queued', 'processing')
        ) then
            return false;
        end if;
        delete from priorityd.ordered_jobs o where o.job_id = p_lane.head_job_id;
        perform priorityd.advance_job_lane(p_lane);
        return true;
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
