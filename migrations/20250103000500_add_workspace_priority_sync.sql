-- Sync, sweep, resync: which rows are looked at. What each becomes is in 20250103000400. All answer with one jsonb,
-- because PostgREST cuts sets of rows at 1,000.

do $functions$
declare
    v_name text;
    v_count text;
    v_counts text;
begin
    if not priorityd.start_unit('20250103000500 functions', 1, '{20250103000400 functions}', array[
        'sync_workspace_priorities', 'sweep_workspace_priorities', 'resync_workspace_priorities_page'
    ]) then
        return;
    end if;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Finding what is wrong. Ranges are of repositories, after p_after and up to p_until; null is no bound.
    -- ---------------------------------------------------------------------------------------------------------------

    -- These are inlined, and the conditions on null parameters disappear from a custom plan. rows_between counts what
    -- counted_between counts where no pair repeats or lacks an id, and takes less.
    for v_name, v_count, v_counts in values
        ('counted_between', 'count(distinct m.workspace_id)', 'm.workspace_id is not null and m.repository_id is not null'),
        ('rows_between', 'count(*)', 'true')
    loop
        execute format($definition$
            create or replace function priorityd.%I(p_after uuid, p_until uuid)
            returns table (repository_id uuid, workspaces bigint)
            language sql stable as $$
                select m.repository_id, %s
                from priorityd.memberships() m
                where %s
                    and (p_after is null or m.repository_id > p_after) and (p_until is null or m.repository_id <= p_until)
                group by m.repository_id
            $$
        $definition$, v_name, v_count, v_counts);
    end loop;

    create or replace function priorityd.tracked_between(p_after uuid, p_until uuid)
    returns table (id uuid, repository_id uuid, is_workspace_repo boolean, workspace_count integer, drifted boolean)
    language sql stable as $$
        select t.id, t.repository_id, t.is_workspace_repo, t.workspace_count, t.drifted
        from priorityd.tracked_rows() t
        where t.repository_id is not null
            and (p_after is null or t.repository_id > p_after) and (p_until is null or t.repository_id <= p_until)
    $$;

    -- The rows without a repository: in a range of keys they stand by their own ids.
    create or replace function priorityd.nameless_between(p_after uuid, p_until uuid)
    returns table (id uuid, drifted boolean)
    language sql stable as $$
        select t.id, t.drifted
        from priorityd.tracked_rows() t
        where t.repository_id is null and (p_after is null or t.id > p_after) and (p_until is null or t.id <= p_until)
    $$;

    -- Repositories of which memberships and tracked rows disagree, those without any tracked row included. One pass over
    -- the memberships beside one over the flagged rows, both in repository order from indexes; tracked rows outside
    -- workspaces are not read. Where a repository may have several rows, one of them can be right and flagged and another
    -- not: then all are read. Rows that contradict themselves are found by other means.
    create or replace function priorityd.mismatched_between(p_after uuid, p_until uuid)
    returns setof uuid language plpgsql stable
    set jit = off
    -- Both indexes are in order already, so merging them takes a third of the time of hashing; the planner believes
    -- otherwise. The memory is for the time between many changes and the next vacuum, when sorting replaces one of the
    -- indexes; little of it is used otherwise.
    set enable_hashjoin = off
    set enable_hashagg = off
    -- Else the planner takes the table's rows for cached and free, and chooses between the index of pairs and one of the
    -- application's on the repository alone by their heights: reading the rows as well takes several times as long.
    set effective_cache_size = '1MB'
    set work_mem = '64MB'
    as $$
    declare
        v_one_row constant boolean := priorityd.is_unique('public.tracked_repositories', '{repository_id}');
    begin
        return query execute format($query$
            select coalesce(m.repository_id, f.repository_id)
            from priorityd.%I($1, $2) m
            full join (
                select t.repository_id, %s as workspace_count from priorityd.tracked_between($1, $2) t where %s
            ) f on f.repository_id = m.repository_id
            where m.workspaces is distinct from f.workspace_count
        $query$,
            case when priorityd.pairs_are_unique() then 'rows_between' else 'counted_between' end,
            case when v_one_row then 't.workspace_count' else 'nullif(t.workspace_count, 0)' end,
            case when v_one_row then 't.is_workspace_repo' else 'true' end
        ) using p_after, p_until;
    end
    $$;

    -- Where a page of p_limit tracked rows ends; null at the last. The key of a row is its repository, or its own id where
    -- it has none.
    create or replace function priorityd.page_end(p_after uuid, p_limit integer)
    returns uuid language plpgsql stable
    set plan_cache_mode = force_custom_plan
    as $$
    declare
        v_until constant uuid := (
            select k.key
            from (
                (select t.repository_id as key from priorityd.tracked_between(p_after, null) t order by 1 limit p_limit)
                union all
                (select n.id from priorityd.nameless_between(p_after, null) n order by 1 limit p_limit)
            ) k
            order by k.key
            offset p_limit - 1
            limit 1
        );
    begin
        return case
            when exists (select from priorityd.tracked_between(v_until, null))
                or exists (select from priorityd.nameless_between(v_until, null)) then v_until
        end;
    end
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

    -- The rows of a range that may be wrong, from indexes alone: those that contradict themselves, and those whose flag and
    -- count disagree with the memberships. All others are right: how many there are, and how many of them in a workspace.
    create or replace function priorityd.suspects_between(
        p_after uuid,
        p_until uuid,
        out suspects uuid[],
        out right_rows bigint,
        out right_in_workspace bigint,
        out untracked bigint
    )
    language plpgsql stable
    set plan_cache_mode = force_custom_plan
    set jit = off
    as $$
    declare
        v_mismatched constant uuid[] := array(select priorityd.mismatched_between(p_after, p_until));
        v_tracked uuid[];
        v_flagged bigint;
    begin
        with mismatched as (
            select t.id, t.repository_id, t.is_workspace_repo, t.drifted
            from priorityd.tracked_rows() t
            where t.repository_id = any (v_mismatched)
        ),
        suspect as (
            select m.id, m.is_workspace_repo from mismatched m where not m.drifted
            union all
            select t.id, t.is_workspace_repo from priorityd.tracked_between(p_after, p_until) t where t.drifted
            union all
            select n.id, false from priorityd.nameless_between(p_after, p_until) n where n.drifted
        )
        select coalesce(array_agg(s.id), '{}'), count(*) filter (where s.is_workspace_repo),
            array(select m.repository_id from mismatched m)
        into suspects, v_flagged, v_tracked
        from suspect s;
        right_rows := (select count(*) from priorityd.tracked_between(p_after, p_until))
            + (select count(*) from priorityd.nameless_between(p_after, p_until)) - cardinality(suspects);
        right_in_workspace := (
            select count(*) from priorityd.tracked_between(p_after, p_until) t where t.is_workspace_repo
        ) - v_flagged;
        untracked := priorityd.count_untracked(
            array(select m from unnest(v_mismatched) m except select t from unnest(v_tracked) t)
        );
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Sync, sweep, resync
    -- ---------------------------------------------------------------------------------------------------------------

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
                ('applied_at', to_jsonb(clock_timestamp()))
            union all
            select m.key, m.value from jsonb_each(p_more) m
        ) a (key, value)
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

    -- Finds the wrong rows and repairs at most p_limit of them; `more` says whether there were more, `database_seconds`
    -- is the cost, by which the caller paces itself. It grows with the memberships, not with the tracked rows. All are
    -- found before any is locked.
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
        v_written := priorityd.apply(v_ids[:p_limit], p_trigger, p_dry_run);
        return priorityd.answer(v_written, jsonb_build_object(
            'untracked', priorityd.count_untracked(v_mismatched),
            'more', cardinality(v_ids) > p_limit,
            'database_seconds', extract(epoch from clock_timestamp() - statement_timestamp())
        ));
    end
    $$;

    -- One page of the full resync: some p_limit tracked rows after the key p_after, null being the start. `next_after` is
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
