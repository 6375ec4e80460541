-- What others order: manual overrides, and the rollback of everything.

do $functions$
begin
    if not priorityd.start_unit('20250103000900 functions', 1, '{20250103000800 functions}', array[
        'set_manual_priority', 'rollback_workspace_priorities'
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
    -- override must not be found again as a 'high' that somebody set. Of several rows of the repository all are pinned, or
    -- none if one of them is held or refused. `old_manual_priority` is what the override was, of several the highest.
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
        v_answer jsonb;
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

        v_answer := priorityd.apply(
            v_ids, 'pin', false, p_careful => true, p_pin => true, p_manual_priority => p_priority
        );
        if v_answer -> 'refused' <> '[]' then
            raise exception 'repository % can''t be written: % (%)', priorityd.known_as(p_repository_id),
                v_answer #>> '{refused,0,message}', coalesce(v_answer #>> '{refused,0,sqlstate}', 'no error')
                using errcode = 'PT422', hint = 'Nothing was changed.';
        end if;
        -- Nobody comes back for this one by themselves, so it may not just be reported.
        if v_answer -> 'locked' <> '[]' then
            raise exception 'repository % is being changed by another transaction', priorityd.known_as(p_repository_id)
                using errcode = 'PT409', hint = 'Nothing was changed. Try again in a moment.';
        end if;
        return v_answer || jsonb_build_object(
            'untracked', 0, 'old_manual_priority', v_old, 'manual_priority', p_priority
        );
    end
    $$;

    -- Writes the rollback of these rows and records it: which were written so, and which are held by somebody else. In one
    -- subtransaction with its caller: rows locked in one and updated in another cost a multixact each.
    create or replace function priorityd.roll_rows_back(p_ids uuid[], out written uuid[], out locked uuid[])
    language plpgsql as $$
    declare
        v_free constant uuid[] := priorityd.lock_tracked_rows(p_ids, false);
    begin
        locked := array(
            select u.id from unnest(p_ids) u (id) where not exists (select from unnest(v_free) f (id) where f.id = u.id)
        );
        with before as (
            select tr.id, tr.priority, tr.is_workspace_repo, tr.manual_priority as old_manual_priority, case
                when priorityd.is_override(
                    tr.priority::text, tr.is_workspace_repo, tr.workspace_count::integer, tr.manual_priority::text,
                    tr.repository_id
                ) then tr.priority
                else tr.manual_priority
            end as manual_priority
            from public.tracked_repositories tr
            join unnest(v_free) l (id) on l.id = tr.id
        ),
        updated as (
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
            select u.id, u.repository_id, b.priority, u.priority, b.is_workspace_repo, u.is_workspace_repo,
                u.workspace_count, b.old_manual_priority, u.manual_priority, 'rollback',
                case when not s.shows then clock_timestamp() end
            from updated u
            join before b on b.id = u.id
            cross join lateral (
                select b.priority is distinct from u.priority
                    or coalesce(b.is_workspace_repo, false) <> u.is_workspace_repo as shows
            ) s
            where s.shows or b.old_manual_priority is distinct from u.manual_priority
            order by u.id
        )
        select coalesce(array_agg(u.id), '{}') into written from updated u
        where not u.is_workspace_repo and u.workspace_count = 0 and u.priority = coalesce(u.manual_priority, 'medium');
    end
    $$;

    -- The same where the application refuses to change some rows, which are found as in write_rows: how many were written,
    -- are held, and were refused, and what was said of one of these.
    create or replace function priorityd.roll_back_as_allowed(
        p_ids uuid[], p_most integer default 100,
        out changed bigint, out locked bigint, out refused bigint, out refusal text
    )
    language plpgsql as $$
    declare
        v_half constant integer := cardinality(p_ids) / 2;
        v_rows record;
        v_first record;
        v_second record;
        v_state text;
    begin
        begin
            v_rows := priorityd.roll_rows_back(p_ids);
            perform priorityd.check_deferred();
            changed := cardinality(v_rows.written);
            locked := cardinality(v_rows.locked);
            refused := cardinality(p_ids) - changed - locked;
            if refused > 0 then
                refusal := 'a trigger or rule of the application kept a row from changing so';
            end if;
            return;
        exception
            when others or assert_failure then
                get stacked diagnostics v_state = returned_sqlstate, refusal = message_text;
        end;
        perform priorityd.wait_no_more(v_state);
        if cardinality(p_ids) > 1 and p_most > 0 then
            v_first := priorityd.roll_back_as_allowed(p_ids[:v_half], p_most);
            v_second := priorityd.roll_back_as_allowed(p_ids[v_half + 1:], p_most - v_first.refused::integer);
            changed := v_first.changed + v_second.changed;
            locked := v_first.locked + v_second.locked;
            refused := v_first.refused + v_second.refused;
            refusal := coalesce(v_first.refusal, v_second.refusal);
            return;
        end if;
        changed := 0;
        locked := 0;
        refused := cardinality(p_ids);
        refusal := format('%s (%s)', left(refusal, 300), v_state);
    end
    $$;

    -- Takes everything back: flags off, counts 0, and the priority that each repository has outside workspaces.
    -- Explicit overrides are adopted first, so they stay. Stop the daemon before: it would set all this again. Rows that
    -- somebody else holds are not waited for: `locked` says how many there were, and another call does them. `refused` are
    -- those that the application keeps as they are, `refusal` is what it says of one of them.
    create or replace function public.rollback_workspace_priorities()
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '10min'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_rows record;
    begin
        perform priorityd.demand_sight();
        v_rows := priorityd.roll_back_as_allowed(array(
            select tr.id from public.tracked_repositories tr
            where tr.is_workspace_repo is distinct from false
                or tr.workspace_count is distinct from 0
                or tr.priority is distinct from coalesce(tr.manual_priority, 'medium')
        ));
        return to_jsonb(v_rows) || jsonb_build_object('applied_at', clock_timestamp());
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
