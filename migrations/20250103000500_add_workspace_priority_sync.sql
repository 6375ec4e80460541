-- Sync, sweep, resync: which rows are looked at, and what is recorded and answered. Which are wrong is found in
-- 20250103000200, what each becomes is in 20250103000400. All answer with one jsonb, because PostgREST cuts sets of rows
-- at 1,000.

do $functions$
begin
    if not priorityd.start_unit('20250103000500 functions', 1, '{20250103000400 functions}', array[
        'sync_workspace_priorities', 'sweep_workspace_priorities', 'resync_workspace_priorities_page'
    ]) then
        return;
    end if;

    -- Records what these rows have become: what the UPDATE returned, not what was intended. If only the manual override has
    -- changed there is nothing to announce: such a record is written as dispatched.
    create or replace function priorityd.record_changes(p_outcomes priorityd.outcome[], p_trigger text)
    returns void language sql as $$
        insert into public.repository_priority_changes (
            tracked_repository_id, repository_id, old_priority, new_priority, old_is_workspace_repo, is_workspace_repo,
            workspace_count, old_manual_priority, manual_priority, trigger, dispatched_at
        )
        select o.id, o.repository_id, o.old_priority, o.written_priority, o.old_is_workspace_repo,
            coalesce(o.written_is_workspace_repo, false), coalesce(o.written_workspace_count, 0),
            o.old_manual_priority, o.written_manual_priority, p_trigger,
            case when not s.shows then clock_timestamp() end
        from unnest(p_outcomes) o
        -- A null flag that becomes false changes nothing.
        cross join lateral (
            select o.old_priority is distinct from o.written_priority
                or coalesce(o.old_is_workspace_repo, false) <> coalesce(o.written_is_workspace_repo, false) as shows
        ) s
        where o.reached and (s.shows or o.old_manual_priority is distinct from o.written_manual_priority)
        order by o.id
    $$;

    -- What became of some rows: how many were looked at and how many of those are in a workspace, how many changed, and the
    -- lists of those that changed, were locked, or were refused.
    if to_regtype('priorityd.written') is null then
        create type priorityd.written as (
            examined bigint,
            workspace_repos bigint,
            changed bigint,
            changes jsonb,
            locked jsonb,
            refused jsonb
        );
    end if;

    create or replace function priorityd.describe(p_outcomes priorityd.outcome[], p_dry_run boolean)
    returns priorityd.written language sql stable as $$
        with judged as (
            select o.*, o.wrong and (p_dry_run or o.reached) and not f.failed as changed, f.failed
            from unnest(p_outcomes) o
            cross join lateral (
                select o.wrong and o.locked and not p_dry_run and (
                    o.written_priority, o.written_is_workspace_repo, o.written_workspace_count, o.written_manual_priority
                ) is distinct from (o.new_priority, o.is_workspace_repo, o.workspace_count, o.manual_priority) as failed
            ) f
        ),
        named as (
            select n.repository_id, n.name
            from priorityd.repository_names(
                array(select j.repository_id from judged j where (j.changed or j.failed) and j.repository_id is not null)
            ) n
        ),
        named_rows as (
            select n.id, n.name
            from priorityd.row_names(
                array(select j.id from judged j where (j.changed or j.failed) and j.repository_id is null)
            ) n
        )
        select
            count(*),
            count(*) filter (where j.is_workspace_repo),
            count(*) filter (where j.changed),
            coalesce(
                jsonb_agg(to_jsonb(c) order by j.id) filter (where j.changed),
                '[]'
            ),
            coalesce(
                jsonb_agg(j.repository_id order by j.repository_id) filter (
                    where not p_dry_run and not j.locked and j.repository_id is not null
                ),
                '[]'
            ),
            coalesce(
                jsonb_agg(
                    jsonb_build_object(
                        'id', j.id,
                        'repository_id', j.repository_id,
                        'name', c.name,
                        'sqlstate', j.sqlstate,
                        'message', coalesce(j.message, 'a trigger or rule of the application did not let the row change as it should')
                    )
                    order by j.id
                ) filter (where j.failed),
                '[]'
            )
        from judged j
        left join named n on n.repository_id = j.repository_id
        left join named_rows r on r.id = j.id
        cross join lateral (
            select j.id, j.repository_id, coalesce(n.name, r.name) as name, j.old_priority, j.new_priority,
                j.is_workspace_repo, j.workspace_count, coalesce(j.old_workspace_count, 0) as old_workspace_count
        ) c
    $$;

    -- Corrects these rows, and records and returns what changed. p_right more, of which p_right_in_workspace are in a
    -- workspace, were looked at and are right.
    create or replace function priorityd.lock_and_write(
        p_suspects uuid[],
        p_trigger text,
        p_dry_run boolean,
        p_right bigint,
        p_right_in_workspace bigint,
        p_pin boolean default false,
        p_manual_priority text default null
    )
    returns priorityd.written language plpgsql as $$
    declare
        v_outcomes priorityd.outcome[];
        v_written priorityd.written;
    begin
        if not p_dry_run and current_setting('transaction_isolation') <> 'read committed' then
            raise exception 'priorities must be written under READ COMMITTED: an older snapshot hides memberships'
                using errcode = 'invalid_transaction_state';
        end if;
        perform priorityd.demand_sight();
        v_outcomes := priorityd.write_rows(
            p_suspects, cardinality(p_suspects) = 1, p_dry_run, p_pin, p_manual_priority
        );
        perform priorityd.record_changes(v_outcomes, p_trigger);
        v_written := priorityd.describe(v_outcomes, p_dry_run);
        v_written.examined := v_written.examined + p_right;
        v_written.workspace_repos := v_written.workspace_repos + p_right_in_workspace;
        return v_written;
    end
    $$;

    -- The answer that sync, sweep, resync and pin share, and what each adds. `||` would copy the list of changes once more.
    create or replace function priorityd.answer(p_written priorityd.written, p_more jsonb)
    returns jsonb language sql as $$
        select jsonb_object_agg(a.key, a.value)
        from (
            values
                ('examined', to_jsonb(p_written.examined)),
                ('workspace_repos', to_jsonb(p_written.workspace_repos)),
                ('tracked_only_repos', to_jsonb(p_written.examined - p_written.workspace_repos)),
                ('changed', to_jsonb(p_written.changed)),
                ('changes', p_written.changes),
                ('locked', p_written.locked),
                ('refused', p_written.refused),
                ('applied_at', to_jsonb(clock_timestamp())),
                ('database_seconds', to_jsonb(extract(epoch from clock_timestamp() - statement_timestamp())))
            union all
            select m.key, m.value from jsonb_each(p_more) m
        ) a (key, value)
    $$;

    -- How many of these repositories are in a workspace but have no tracked row.
    create or replace function priorityd.count_untracked(p_repository_ids uuid[])
    returns bigint language sql stable as $$
        select count(*)
        from (select distinct u.repository_id from unnest(p_repository_ids) u (repository_id)) r
        where not exists (select from public.tracked_repositories tr where tr.repository_id = r.repository_id)
            and exists (
                select from priorityd.memberships() m
                where m.repository_id = r.repository_id and m.workspace_id is not null
            )
    $$;

    -- Corrects these tracked rows.
    -- p_careful: also lock rows that look right but have an xmax, and decide on them again (see the top of 000400). Calls
    -- on behalf of a change need it. Sweep and resync do not: a row that another call is just writing is that call's
    -- business, and a row can keep the xmax of a finished transaction for long.
    create or replace function priorityd.apply(
        p_ids uuid[],
        p_trigger text,
        p_dry_run boolean,
        p_careful boolean default false,
        p_pin boolean default false,
        p_manual_priority text default null
    )
    returns priorityd.written language plpgsql
    set plan_cache_mode = force_custom_plan
    as $$
    declare
        v_dry_run constant boolean := coalesce(p_dry_run, false);
        v_suspects uuid[];
        v_right bigint;
        v_right_in_workspace bigint;
    begin
        select
            coalesce(array_agg(d.id) filter (where s.suspect), '{}'),
            count(*) filter (where not s.suspect),
            count(*) filter (where not s.suspect and d.is_workspace_repo)
        into v_suspects, v_right, v_right_in_workspace
        from priorityd.decide(p_ids, p_pin, p_manual_priority) d
        cross join lateral (select d.wrong or (p_careful and d.contended and not v_dry_run) as suspect) s;

        return priorityd.lock_and_write(
            v_suspects, p_trigger, v_dry_run, v_right, v_right_in_workspace, p_pin, p_manual_priority
        );
    end
    $$;

    -- Syncs exactly these repositories. Nulls, duplicates and unknown ids are harmless. `all_refused` says whether the
    -- application refuses every row (see the checks); it is null where too little was written or refused to tell.
    -- Only a call for a single row waits for it, briefly, since other changes queue behind that.
    create or replace function public.sync_workspace_priorities(
        p_repository_ids uuid[],
        p_trigger text default 'manual',
        p_dry_run boolean default false
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set plan_cache_mode = force_custom_plan
    set lock_timeout = '100ms'
    set statement_timeout = '12s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        c_many constant integer := 10;
        v_ids uuid[];
        v_written priorityd.written;
    begin
        perform priorityd.check_trigger(p_trigger);
        select array_agg(tr.id) into v_ids
        from public.tracked_repositories tr
        where tr.repository_id = any (p_repository_ids);

        v_written := priorityd.apply(v_ids, p_trigger, p_dry_run, p_careful => true);
        return priorityd.answer(v_written, jsonb_build_object(
            'untracked', priorityd.count_untracked(p_repository_ids),
            'all_refused', case
                when v_written.changed > 0 then false
                when jsonb_array_length(v_written.refused) >= c_many then priorityd.refuses_all_rows(v_ids)
            end
        ));
    end
    $$;

    -- Finds the wrong rows and repairs at most p_limit of them; `more` says whether there were more. The cost grows with
    -- the memberships, not with the tracked rows. All are found before any is locked. `writing_seconds` is the part of
    -- `database_seconds` that depends on p_limit.
    create or replace function public.sweep_workspace_priorities(
        p_trigger text default 'sweep',
        p_limit integer default 5000,
        p_dry_run boolean default false
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set plan_cache_mode = force_custom_plan
    set lock_timeout = '1s'
    set statement_timeout = '18s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_mismatched uuid[];
        v_ids uuid[];
        v_found_at timestamptz;
        v_written priorityd.written;
    begin
        perform priorityd.check_trigger(p_trigger);
        perform priorityd.check_limit(p_limit);
        v_mismatched := array(select priorityd.mismatched_between(null, null));
        v_ids := array(
            select t.id from priorityd.tracked_rows() t where t.repository_id = any (v_mismatched)
            union
            (select t.id from priorityd.tracked_rows() t where t.drifted order by t.repository_id, t.id limit p_limit + 1)
            order by id
            limit p_limit + 1
        );
        v_found_at := clock_timestamp();
        v_written := priorityd.apply(v_ids[:p_limit], p_trigger, p_dry_run);
        return priorityd.answer(v_written, jsonb_build_object(
            'writing_seconds', extract(epoch from clock_timestamp() - v_found_at),
            'untracked', priorityd.count_untracked(v_mismatched),
            'more', cardinality(v_ids) > p_limit
        ));
    end
    $$;

    -- One page of the full resync: about p_limit tracked rows after the key p_after, null being the start. `next_after` is
    -- where the next page starts, null at the end.
    --
    -- Pages are ranges of keys. Within one the memberships are a range of their index too, so each is read once in a whole
    -- resync, beside the tracked rows. A row that looks wrong is only suspected: lock_and_write decides. One that looks
    -- right while another call is about to write it is that call's business, as always.
    -- Where many rows are wrong the page is made shorter, so that no transaction holds locks on many for long.
    create or replace function public.resync_workspace_priorities_page(
        p_after uuid,
        p_limit integer,
        p_trigger text default 'resync',
        p_dry_run boolean default false
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set plan_cache_mode = force_custom_plan
    set lock_timeout = '1s'
    set statement_timeout = '30s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        c_most_writes constant integer := 6250;
        v_dry_run constant boolean := coalesce(p_dry_run, false);
        v_limit integer := p_limit;
        v_until uuid;
        v_found record;
        v_written priorityd.written;
    begin
        perform priorityd.check_trigger(p_trigger);
        perform priorityd.check_limit(p_limit);
        loop
            v_until := priorityd.page_end(p_after, v_limit);
            v_found := priorityd.suspects_between(p_after, v_until);
            exit when v_dry_run or v_limit = 1 or cardinality(v_found.suspects) <= c_most_writes;
            v_limit := greatest(1, least(v_limit, v_found.right_rows + cardinality(v_found.suspects)) * c_most_writes
                / cardinality(v_found.suspects) * 9 / 10);
        end loop;

        v_written := priorityd.lock_and_write(
            v_found.suspects, p_trigger, v_dry_run, v_found.right_rows, v_found.right_in_workspace
        );
        return priorityd.answer(
            v_written, jsonb_build_object('untracked', v_found.untracked, 'next_after', v_until)
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
