-- Sync, sweep, resync; manual overrides; rollback. The rules are in 20250103000300. All answer with one jsonb, because
-- PostgREST cuts sets of rows at 1,000.

do $functions$
declare
    v_name text;
    v_count text;
begin
    if not priorityd.start_unit('20250103000400 functions', 1, '{20250103000300 functions}', array[
        'sync_workspace_priorities', 'sweep_workspace_priorities', 'resync_workspace_priorities_page',
        'set_manual_priority', 'rollback_workspace_priorities'
    ]) then
        return;
    end if;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Finding what is wrong. Ranges are of repositories, after p_after and up to p_until; null is no bound.
    -- ---------------------------------------------------------------------------------------------------------------

    -- These are inlined, and the conditions on null parameters disappear from a custom plan. rows_between counts what
    -- counted_between counts where no pair repeats, and takes less.
    for v_name, v_count in values ('counted_between', 'count(distinct m.workspace_id)'), ('rows_between', 'count(*)') loop
        execute format($definition$
            create or replace function priorityd.%I(p_after uuid, p_until uuid)
            returns table (repository_id uuid, workspaces bigint)
            language sql stable as $$
                select m.repository_id, %s
                from priorityd.memberships() m
                where (p_after is null or m.repository_id > p_after) and (p_until is null or m.repository_id <= p_until)
                group by m.repository_id
            $$
        $definition$, v_name, v_count);
    end loop;

    create or replace function priorityd.tracked_between(p_after uuid, p_until uuid)
    returns table (id uuid, repository_id uuid, is_workspace_repo boolean, workspace_count integer, drifted boolean)
    language sql stable as $$
        select t.id, t.repository_id, t.is_workspace_repo, t.workspace_count, t.drifted
        from priorityd.tracked_rows() t
        where t.repository_id is not null
            and (p_after is null or t.repository_id > p_after) and (p_until is null or t.repository_id <= p_until)
    $$;

    -- Whether no pair can repeat: memberships are counted as installed, and a unique index sees to it.
    create or replace function priorityd.pairs_are_unique()
    returns boolean language sql stable as $$
        select priorityd.memberships_are_as_installed() and exists (
            select from pg_index i
            where i.indrelid = 'public.workspace_repositories'::regclass
                and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
                and array(
                    select a.attname::text
                    from unnest(i.indkey::smallint[]) with ordinality k (attnum, position)
                    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                    where k.position <= i.indnkeyatts
                ) <@ '{workspace_id,repository_id}'
        )
    $$;

    -- Repositories of which memberships and flagged rows disagree, those without any tracked row included. One pass over
    -- the memberships beside one over the flagged rows, both in repository order from indexes; tracked rows outside
    -- workspaces are not read.
    create or replace function priorityd.mismatched_between(p_after uuid, p_until uuid)
    returns setof uuid language plpgsql stable
    set jit = off
    -- Both indexes are in order already, so merging them takes a third of the time of hashing; the planner believes
    -- otherwise. The memory is for the time between many changes and the next vacuum, when sorting replaces one of the
    -- indexes; little of it is used otherwise.
    set enable_hashjoin = off
    set enable_hashagg = off
    set work_mem = '64MB'
    as $$
    begin
        return query execute format($query$
            select coalesce(m.repository_id, f.repository_id)
            from priorityd.%I($1, $2) m
            full join (
                select t.repository_id, t.workspace_count
                from priorityd.tracked_between($1, $2) t
                where t.is_workspace_repo
            ) f on f.repository_id = m.repository_id
            where m.workspaces is distinct from f.workspace_count
        $query$, case when priorityd.pairs_are_unique() then 'rows_between' else 'counted_between' end)
        using p_after, p_until;
    end
    $$;

    -- Where a page of p_limit tracked rows ends; null at the last.
    create or replace function priorityd.page_end(p_after uuid, p_limit integer)
    returns uuid language plpgsql stable
    set plan_cache_mode = force_custom_plan
    as $$
    declare
        v_until uuid := (
            select t.repository_id from priorityd.tracked_between(p_after, null) t
            order by t.repository_id
            offset p_limit - 1
            limit 1
        );
    begin
        return case when exists (select from priorityd.tracked_between(v_until, null)) then v_until end;
    end
    $$;

    -- The rows of a range that may be wrong, and how many are right, from indexes alone. p_drifted are all rows that
    -- contradict themselves: a row that does not, and whose flag and count agree with the memberships, is right.
    create or replace function priorityd.suspects_by_index(
        p_after uuid,
        p_until uuid,
        p_drifted uuid[],
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
    begin
        suspects := array(
            select t.id from priorityd.tracked_rows() t where t.repository_id = any (v_mismatched)
            union
            select t.id from priorityd.tracked_between(p_after, p_until) t where t.id = any (p_drifted)
        );
        right_rows := (select count(*) from priorityd.tracked_between(p_after, p_until)) - cardinality(suspects);
        right_in_workspace := (
            select count(*) from priorityd.tracked_between(p_after, p_until) t where t.is_workspace_repo
        ) - (
            select count(*) from priorityd.tracked_rows() t where t.is_workspace_repo and t.id = any (suspects)
        );
        untracked := priorityd.count_untracked(v_mismatched);
    end
    $$;

    -- The same by reading every row of the range: where many are wrong, picking them out takes longer.
    create or replace function priorityd.suspects_by_reading(
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
    begin
        select
            coalesce(array_agg(s.id) filter (where s.id is not null and s.suspect), '{}'),
            count(*) filter (where s.id is not null and not s.suspect),
            count(*) filter (where s.id is not null and not s.suspect and s.workspaces > 0),
            count(*) filter (where s.id is null)
        into suspects, right_rows, right_in_workspace, untracked
        from (
            select t.id, m.workspaces, t.drifted or t.workspace_count <> coalesce(m.workspaces, 0) as suspect
            from priorityd.tracked_between(p_after, p_until) t
            full join priorityd.counted_between(p_after, p_until) m on m.repository_id = t.repository_id
        ) s;
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Sync, sweep, resync
    -- ---------------------------------------------------------------------------------------------------------------

    -- Makes exactly these repositories right. Nulls, duplicates and unknown ids are harmless.
    -- Only a call for a single row waits for it, and other changes wait behind that: so not for long.
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
        v_ids uuid[];
    begin
        perform priorityd.check_trigger(p_trigger);
        select array_agg(tr.id) into v_ids
        from public.tracked_repositories tr
        where tr.repository_id = any (p_repository_ids);

        return priorityd.apply(v_ids, p_trigger, p_dry_run, p_careful => true)
            || jsonb_build_object('untracked', priorityd.count_untracked(p_repository_ids));
    end
    $$;

    -- Finds the rows that are wrong and mends at most p_limit of them; `more` says that there were more, and
    -- `database_seconds` what it cost, by which the caller paces itself. Cost grows with the memberships, not with the
    -- tracked rows. All are found before any is locked.
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
    begin
        perform priorityd.check_trigger(p_trigger);
        perform priorityd.check_limit(p_limit);
        v_mismatched := array(select priorityd.mismatched_between(null, null));
        v_ids := array(
            select t.id from priorityd.tracked_rows() t where t.repository_id = any (v_mismatched)
            union
            (select t.id from priorityd.tracked_rows() t where t.drifted order by t.id limit p_limit + 1)
            order by id
            limit p_limit + 1
        );
        return priorityd.apply(v_ids[:p_limit], p_trigger, p_dry_run) || jsonb_build_object(
            'untracked', priorityd.count_untracked(v_mismatched),
            'more', cardinality(v_ids) > p_limit,
            'database_seconds', extract(epoch from clock_timestamp() - statement_timestamp())
        );
    end
    $$;

    -- One page of the full resync: some p_limit tracked rows after the repository p_after, null being the start.
    -- `next_after` is where the next page starts, null at the end. Rows without a repository come with the last page.
    --
    -- Pages are ranges of repositories: within a range the memberships are a range of their index too, so each is read
    -- once in a whole resync, beside the tracked rows. What looks wrong is only suspected: lock_and_write decides. A row
    -- that looks right while another call is about to write it is that call's business, as ever.
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
        c_few constant integer := 1000;
        v_dry_run constant boolean := coalesce(p_dry_run, false);
        v_limit integer := p_limit;
        v_drifted uuid[];
        v_until uuid;
        v_found record;
    begin
        perform priorityd.check_trigger(p_trigger);
        perform priorityd.check_limit(p_limit);
        v_drifted := array(select t.id from priorityd.tracked_rows() t where t.drifted limit c_few + 1);
        loop
            v_until := priorityd.page_end(p_after, v_limit);
            if cardinality(v_drifted) <= c_few then
                v_found := priorityd.suspects_by_index(p_after, v_until, v_drifted);
            else
                v_found := priorityd.suspects_by_reading(p_after, v_until);
            end if;
            exit when v_dry_run or v_limit = 1 or cardinality(v_found.suspects) <= c_most_writes;
            v_limit := greatest(1, least(v_limit, v_found.right_rows + cardinality(v_found.suspects)) * c_most_writes
                / cardinality(v_found.suspects) * 9 / 10);
        end loop;

        if v_until is null then
            select
                v_found.suspects || coalesce(array_agg(t.id) filter (where t.drifted), '{}') as suspects,
                v_found.right_rows + count(*) filter (where not t.drifted) as right_rows,
                v_found.right_in_workspace as right_in_workspace,
                v_found.untracked as untracked
            into v_found
            from priorityd.tracked_rows() t
            where t.repository_id is null;
        end if;
        return priorityd.answer(
            priorityd.lock_and_write(v_found.suspects, p_trigger, v_dry_run),
            v_found.right_rows,
            v_found.right_in_workspace
        ) || jsonb_build_object('untracked', v_found.untracked, 'next_after', v_until);
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Manual override, rollback
    -- ---------------------------------------------------------------------------------------------------------------

    -- Sets the override of a repository, or clears it with null, and makes its row right in the same write: a
    -- cleared override must not be found again as a 'high' that somebody set.
    create or replace function public.set_manual_priority(p_repository_id uuid, p_priority text)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '30s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_ids uuid[];
        v_answer jsonb;
    begin
        if p_repository_id is null then
            raise exception 'p_repository_id is null, but must be the id of a repository'
                using errcode = 'invalid_parameter_value';
        end if;
        if p_priority not in ('high', 'medium', 'low') then
            raise exception 'p_priority is %, but must be high, medium, low, or null to clear the override',
                quote_literal(p_priority)
                using errcode = 'invalid_parameter_value';
        end if;
        v_ids := array(select tr.id from public.tracked_repositories tr where tr.repository_id = p_repository_id);
        if v_ids = '{}' then
            raise exception 'repository % is not tracked', p_repository_id
                using errcode = 'PT404', hint = 'Only a repository with a row in tracked_repositories has a priority.';
        end if;

        v_answer := priorityd.apply(
            v_ids, 'pin', false, p_careful => true, p_pin => true, p_manual_priority => p_priority
        );
        if v_answer -> 'refused' <> '[]' then
            raise exception 'repository % can''t be written: % (%)', p_repository_id,
                v_answer #>> '{refused,0,message}', coalesce(v_answer #>> '{refused,0,sqlstate}', 'no error')
                using errcode = 'P0001', hint = 'Nothing was changed.';
        end if;
        -- Nobody comes back for this one by themselves, so it may not just be reported.
        if v_answer -> 'locked' <> '[]' then
            raise exception 'repository % is being changed by another transaction', p_repository_id
                using errcode = 'PT409', hint = 'Nothing was changed. Try again in a moment.';
        end if;
        return v_answer || jsonb_build_object('untracked', 0, 'manual_priority', p_priority);
    end
    $$;

    -- Takes everything back: flags off, counts 0, and the priority that each repository has outside workspaces.
    -- Explicit overrides are adopted first, so they stay. Stop the daemon before: it would set all this again.
    create or replace function public.rollback_workspace_priorities()
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '10s'
    set statement_timeout = '10min'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_ids uuid[];
        v_changed bigint;
    begin
        perform priorityd.demand_sight();
        with locked as (
            select tr.id from public.tracked_repositories tr
            where tr.is_workspace_repo is distinct from false
                or tr.workspace_count is distinct from 0
                or tr.priority is distinct from coalesce(tr.manual_priority, 'medium')
            order by tr.id
            for no key update
        )
        select array_agg(l.id) into v_ids from locked l;

        with before as (
            select tr.id, tr.priority, tr.is_workspace_repo, case
                when priorityd.is_override(
                    tr.priority::text, tr.is_workspace_repo, tr.workspace_count, tr.manual_priority::text, tr.repository_id
                ) then 'high'
                else tr.manual_priority
            end as manual_priority
            from public.tracked_repositories tr
            join unnest(v_ids) l (id) on l.id = tr.id
        ),
        written as (
            update public.tracked_repositories tr
            set is_workspace_repo = false,
                workspace_count = 0,
                priority = coalesce(b.manual_priority, 'medium'),
                manual_priority = b.manual_priority
            from before b
            where tr.id = b.id
            returning tr.id, tr.repository_id, tr.priority
        ),
        recorded as (
            insert into public.repository_priority_changes (
                tracked_repository_id, repository_id, old_priority, new_priority,
                old_is_workspace_repo, is_workspace_repo, workspace_count, trigger
            )
            select w.id, w.repository_id, b.priority, w.priority, b.is_workspace_repo, false, 0, 'rollback'
            from written w
            join before b on b.id = w.id
            where b.priority is distinct from w.priority or b.is_workspace_repo
            order by w.id
        )
        select count(*) into v_changed from written;

        return jsonb_build_object('changed', v_changed, 'applied_at', clock_timestamp());
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
