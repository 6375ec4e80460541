-- What is done on request: manual overrides, the rollback of everything, and trimming the record.

do $functions$
begin
    if not priorityd.start_unit('20250103000900 functions', 1, '{20250103000800 functions}', array[
        'set_manual_priority', 'rollback_workspace_priorities', 'trim_priority_changes'
    ]) then
        return;
    end if;

    -- The labels that a priority may be pinned to: those of these that its type has.
    create or replace function priorityd.priority_labels()
    returns text[] language sql stable as $$
        select array(
            select n.label from unnest(array['critical', 'high', 'medium', 'low']) with ordinality n (label, position)
            where not exists (
                select from pg_attribute a join pg_type t on t.oid = a.atttypid and t.typtype = 'e'
                where a.attrelid = 'public.tracked_repositories'::regclass and a.attname = 'manual_priority'
                    and not exists (select from pg_enum e where e.enumtypid = t.oid and e.enumlabel = n.label)
            )
            order by n.position
        )
    $$;

    -- Sets the override of a repository, or clears it with null, and makes its row right in the same write: a cleared
    -- override must not be found again as a 'high' that somebody set. If the repository has several rows, all of them are
    -- pinned; or none, if one is locked or refused. `old_manual_priority` is the previous override, the highest of several.
    create or replace function public.set_manual_priority(p_repository_id uuid, p_priority text)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '30s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_ids uuid[];
        v_old text;
        v_written priorityd.written;
    begin
        perform priorityd.check_repository(p_repository_id);
        if p_priority <> all (priorityd.priority_labels()) then
            raise exception 'the application has no priority %, only %',
                quote_literal(p_priority), array_to_string(priorityd.priority_labels(), ', ')
                using errcode = 'invalid_parameter_value', hint = 'Null clears the override.';
        end if;
        select coalesce(array_agg(tr.id), '{}'),
            (array_agg(tr.manual_priority order by priorityd.rank(tr.manual_priority::text))
                filter (where tr.manual_priority is not null))[1]
        into v_ids, v_old
        from public.tracked_repositories tr
        where tr.repository_id = p_repository_id;
        if v_ids = '{}' then
            raise exception 'repository % is not tracked', priorityd.known_as(p_repository_id)
                using errcode = 'PT404', hint = 'Only a repository with a row in tracked_repositories has a priority.';
        end if;

        v_written := priorityd.apply(
            v_ids, 'pin', false, p_careful => true, p_pin => true, p_manual_priority => p_priority
        );
        if v_written.refused <> '[]' then
            raise exception 'repository % can''t be written: % (%)', priorityd.known_as(p_repository_id),
                v_written.refused #>> '{0,message}', coalesce(v_written.refused #>> '{0,sqlstate}', 'no error')
                using errcode = 'PT422', hint = 'Nothing was changed.';
        end if;
        -- Nothing retries this, so it is an error and not only listed in the answer.
        if v_written.locked <> '[]' then
            raise exception 'repository % is being changed by another transaction', priorityd.known_as(p_repository_id)
                using errcode = 'PT409', hint = 'Nothing was changed. Try again in a moment.';
        end if;
        return priorityd.answer(v_written, jsonb_build_object(
            'untracked', 0, 'old_manual_priority', v_old, 'manual_priority', p_priority
        ));
    end
    $$;

    -- Whether the commit will leave these rows rolled back: see priorityd.read_back.
    create or replace function priorityd.are_rolled_back(p_ids uuid[])
    returns boolean language plpgsql as $$
    declare
        c_taken_back constant text := 'PT299';
        v_are boolean;
    begin
        set constraints all immediate;
        v_are := not exists (
            select from public.tracked_repositories tr
            join unnest(p_ids) p (id) on p.id = tr.id
            where tr.is_workspace_repo is distinct from false or tr.workspace_count is distinct from 0
                or tr.priority is distinct from coalesce(tr.manual_priority, 'medium')
        );
        raise exception using errcode = c_taken_back;
    exception
        when sqlstate 'PT299' then
            return v_are;
    end
    $$;

    -- Rolls these rows back. Rows locked by others are not waited for, but counted. Those that the application refuses to
    -- change are found as in priorityd.write_rows, up to p_most of them one by one; `unwritten` counts them all.
    create or replace function priorityd.roll_back(
        p_ids uuid[], p_most integer, out changed bigint, out locked bigint, out unwritten bigint, out refused jsonb
    )
    language plpgsql
    set plan_cache_mode = force_custom_plan
    as $$
    declare
        v_half constant integer := cardinality(p_ids) / 2;
        v_locked uuid[];
        v_partly bigint;
        v_rest record;
        v_state text;
        v_message text;
    begin
        changed := 0;
        locked := 0;
        unwritten := 0;
        refused := '[]';
        begin
            v_locked := priorityd.lock_tracked_rows(p_ids, false);
            with before as (
                select tr.id, tr.priority, tr.is_workspace_repo, tr.manual_priority as old_manual_priority, case
                    when priorityd.is_override(
                        tr.priority::text, tr.is_workspace_repo, tr.workspace_count::integer, tr.manual_priority::text,
                        tr.repository_id
                    ) then tr.priority
                    else tr.manual_priority
                end as manual_priority
                from public.tracked_repositories tr
                join unnest(v_locked) l (id) on l.id = tr.id
            ),
            written as (
                update public.tracked_repositories tr
                set is_workspace_repo = false,
                    workspace_count = 0,
                    priority = coalesce(b.manual_priority, 'medium'),
                    manual_priority = b.manual_priority
                from before b
                where tr.id = b.id
                returning tr.*
            ),
            recorded as (
                insert into public.repository_priority_changes (
                    tracked_repository_id, repository_id, old_priority, new_priority, old_is_workspace_repo, is_workspace_repo,
                    workspace_count, old_manual_priority, manual_priority, trigger, dispatched_at
                )
                select w.id, w.repository_id, b.priority, w.priority, b.is_workspace_repo, w.is_workspace_repo,
                    w.workspace_count, b.old_manual_priority, w.manual_priority, 'rollback',
                    case when not s.shows then clock_timestamp() end
                from written w
                join before b on b.id = w.id
                cross join lateral (
                    select b.priority is distinct from w.priority
                        or coalesce(b.is_workspace_repo, false) <> w.is_workspace_repo as shows
                ) s
                where s.shows or b.old_manual_priority is distinct from w.manual_priority
                order by w.id
            )
            select count(*), count(*) filter (
                where w.priority is distinct from coalesce(b.manual_priority, 'medium')
                    or w.is_workspace_repo is distinct from false or w.workspace_count is distinct from 0
                    or w.manual_priority is distinct from b.manual_priority
            )
            into changed, v_partly
            from written w
            join before b on b.id = w.id;
            if v_partly > 0 or changed < cardinality(v_locked) or not priorityd.are_rolled_back(v_locked) then
                raise exception 'a trigger or rule of the application did not let the row change as it should'
                    using errcode = 'triggered_data_change_violation';
            end if;
            locked := cardinality(p_ids) - cardinality(v_locked);
            return;
        exception
            when others or assert_failure then
                get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
                -- The fault is the server's, not a row's: see priorityd.try_write.
                if v_state = '25006' or v_state ~ '^(53|57|58)' then
                    raise;
                end if;
        end;
        perform priorityd.wait_no_more(v_state);
        changed := 0;
        if cardinality(p_ids) > 1 and p_most > 0 then
            select r.* into changed, locked, unwritten, refused from priorityd.roll_back(p_ids[:v_half], p_most) r;
            v_rest := priorityd.roll_back(p_ids[v_half + 1:], p_most - jsonb_array_length(refused));
            changed := changed + v_rest.changed;
            locked := locked + v_rest.locked;
            unwritten := unwritten + v_rest.unwritten;
            refused := refused || v_rest.refused;
        elsif v_state in ('55P03', '40P01') then
            locked := cardinality(p_ids);
        else
            unwritten := cardinality(p_ids);
            select jsonb_agg(jsonb_build_object(
                'id', tr.id, 'repository_id', tr.repository_id, 'name', n.name, 'sqlstate', v_state,
                'message', left(v_message, 300)
            ))
            into refused
            from public.tracked_repositories tr
            left join priorityd.repository_names(array[tr.repository_id]) n on true
            where tr.id = p_ids[1];
            refused := coalesce(refused, '[]');
        end if;
    end
    $$;

    -- Rolls everything back: flags off, counts 0, and the priority that each repository has outside workspaces.
    -- Explicit overrides are adopted first, so they stay. Stop the daemon first: it would set all this again. `locked`
    -- counts the rows locked by others: another call rolls them back. `refused` lists some of the `unwritten` rows, which
    -- the application refuses to change.
    create or replace function public.rollback_workspace_priorities()
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '10min'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        c_named constant integer := 100;
        v_ids uuid[];
    begin
        perform priorityd.demand_sight();
        v_ids := array(
            select tr.id from public.tracked_repositories tr
            where tr.is_workspace_repo is distinct from false
                or tr.workspace_count is distinct from 0
                or tr.priority is distinct from coalesce(tr.manual_priority, 'medium')
            order by tr.id
        );
        return (select to_jsonb(r) from priorityd.roll_back(v_ids, c_named) r)
            || jsonb_build_object('applied_at', clock_timestamp());
    end
    $$;

    -- Deletes changes older than p_keep_days, looking at p_limit rows after the key p_after, the oldest first. Pending rows
    -- stay however old they are. next_after is the key to continue from, null when the following rows are recent, so the
    -- cost is that of the rows looked at.
    create or replace function public.trim_priority_changes(
        p_keep_days integer default 90,
        p_after bigint default 0,
        p_limit integer default 5000
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '2s'
    set statement_timeout = '20s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_before timestamptz;
        v_announce_after bigint;
        v_looked_at integer;
        v_last bigint;
        v_last_is_old boolean;
        v_trimmed integer;
    begin
        perform priorityd.check_limit(p_limit);
        perform priorityd.check_range('p_keep_days', p_keep_days, 1, 36500);
        if p_after is null then
            raise exception 'p_after is null, but must be a key' using errcode = 'invalid_parameter_value';
        end if;
        v_before := clock_timestamp() - make_interval(days => p_keep_days);
        if to_regclass('priorityd.outbox') is not null then
            v_announce_after := (select o.announce_after from priorityd.outbox o);
        end if;

        select count(*), max(page.id), (array_agg(page.changed_at < v_before order by page.id desc))[1]
        into v_looked_at, v_last, v_last_is_old
        from (
            select c.id, c.changed_at from public.repository_priority_changes c
            where c.id > p_after
            order by c.id
            limit p_limit
        ) page;

        delete from public.repository_priority_changes c
        where c.id > p_after and c.id <= v_last
            and c.changed_at < v_before
            and (
                c.dispatched_at is not null or c.abandoned_at is not null
                or v_announce_after is null or c.id <= v_announce_after
            );
        get diagnostics v_trimmed = row_count;
        return jsonb_build_object(
            'trimmed', v_trimmed,
            'next_after', case when v_looked_at = p_limit and v_last_is_old then v_last end
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
