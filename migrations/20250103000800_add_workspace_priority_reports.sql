-- What others ask about workspace priorities: job queueing, explanations, dashboards.

do $functions$
begin
    if not priorityd.start_unit('20250103000800 functions', 1, '{20250103000700 functions}', array[
        'get_repository_priorities', 'get_workspace_repository_ids', 'find_repositories', 'explain_repository_priority',
        'workspace_priority_snapshot'
    ]) then
        return;
    end if;

    -- The place of a priority among others, the highest first. A word of the application's own comes between high and
    -- medium.
    create or replace function priorityd.rank(p_priority text)
    returns integer language sql immutable as $$
        select case coalesce(p_priority, 'medium')
            when 'critical' then 1 when 'high' then 2 when 'medium' then 4 when 'low' then 5 else 3
        end
    $$;

    -- The tracked rows of these repositories; if a repository has several, the most relevant one for its jobs.
    create or replace function priorityd.tracked_rows_of(p_repository_ids uuid[])
    returns table (repository_id uuid, priority text, is_workspace_repo boolean, workspace_count integer)
    language sql stable as $$
        select distinct on (tr.repository_id)
            tr.repository_id, tr.priority::text, tr.is_workspace_repo, tr.workspace_count
        from public.tracked_repositories tr
        where tr.repository_id = any (p_repository_ids)
        order by tr.repository_id, coalesce(tr.is_workspace_repo, false) desc, priorityd.rank(tr.priority::text), tr.id
    $$;

    -- What job queueing needs to know, as the rows have it. Untracked repositories are absent.
    create or replace function public.get_repository_priorities(p_repository_ids uuid[])
    returns jsonb language sql stable
    set search_path = public, extensions
    set statement_timeout = '10s'
    set default_transaction_isolation = 'read committed'
    as $$
        select coalesce(jsonb_object_agg(t.repository_id, to_jsonb(t) - 'repository_id'), '{}')
        from priorityd.tracked_rows_of(p_repository_ids) t
    $$;

    -- The repositories with these ids, and those with these names, `owner/name`, each once. Unknown ones are absent; several
    -- may have the same name. `tracked`: there is a row that has a priority.
    create or replace function public.find_repositories(
        p_repository_ids uuid[] default '{}', p_names text[] default '{}'
    )
    returns jsonb language sql stable
    set search_path = public, extensions
    set statement_timeout = '10s'
    set default_transaction_isolation = 'read committed'
    as $$
        with meant as (
            select u.id from unnest(p_repository_ids) u (id) where u.id is not null
            union
            select n.repository_id from priorityd.repositories_named(p_names) n
        ),
        found as (
            select m.id, n.name,
                exists (select from public.tracked_repositories tr where tr.repository_id = m.id) as tracked
            from meant m
            left join priorityd.repository_names(array(select id from meant)) n on n.repository_id = m.id
        )
        select to_jsonb(array(
            select jsonb_build_object('repository_id', f.id, 'name', f.name, 'tracked', f.tracked)
            from found f
            where f.tracked or f.name is not null
                or exists (select from public.workspace_repositories wr where wr.repository_id = f.id)
            order by f.name, f.id
        ))
    $$;

    -- The distinct repositories that are in a workspace, a page at a time.
    create or replace function public.get_workspace_repository_ids(
        p_after uuid default null, p_limit integer default 10000
    )
    returns jsonb language plpgsql stable
    set search_path = public, extensions
    set statement_timeout = '30s'
    set plan_cache_mode = force_custom_plan
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_ids uuid[];
    begin
        perform priorityd.check_limit(p_limit);
        v_ids := array(
            select c.repository_id from priorityd.counted_between(p_after, null) c
            order by c.repository_id
            limit p_limit + 1
        );
        return jsonb_build_object(
            'repository_ids', to_jsonb(v_ids[:p_limit]),
            'next_after', case when cardinality(v_ids) > p_limit then v_ids[p_limit] end
        );
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Explaining: only some entries of each kind are shown, with their total.
    -- ---------------------------------------------------------------------------------------------------------------

    -- What the application calls these workspaces, by a name or else a slug, if there is one and the caller may read it.
    create or replace function priorityd.workspace_names(p_ids text[])
    returns jsonb language plpgsql stable as $$
    declare
        v_columns constant name[] := array(
            select format('nullif(w.%I::text, '''')', c) from unnest('{name, slug}'::name[]) with ordinality c (c, position)
            where c = any (priorityd.readable_columns('public.workspaces', '{name, slug}')) order by position
        );
        v_names jsonb;
    begin
        if v_columns = '{}' or priorityd.readable_columns('public.workspaces', '{id}') = '{}' then
            return '{}';
        end if;
        -- As texts: an application may name the same workspaces by different types.
        execute format(
            'select jsonb_object_agg(w.id, coalesce(%s)) from public.workspaces w where w.id::text = any ($1)',
            array_to_string(v_columns, ', ')
        )
        into v_names using p_ids;
        return coalesce(v_names, '{}');
    end
    $$;

    -- The time in a column of the application's, whatever its type; null if it is not a time, or far out of range.
    create or replace function priorityd.time_told(p_text text)
    returns timestamptz language plpgsql stable as $$
    declare
        v_time timestamptz;
    begin
        v_time := p_text;
        return case when v_time >= '0001-01-02' and v_time < '9999-12-31' then v_time end;
    exception
        when data_exception then
            return null;
    end
    $$;

    -- The workspaces that hold a repository, whatever counts; those that count come first.
    create or replace function priorityd.holding_workspaces(p_repository_id uuid, p_most integer)
    returns jsonb language sql stable as $$
        with counting as (
            select distinct m.workspace_id::text as id from priorityd.memberships() m where m.repository_id = p_repository_id
        ),
        -- A column that an application may not have is read through jsonb, where a missing one is null.
        holding as (
            select wr.workspace_id::text as id, min(to_jsonb(wr) ->> 'added_at') as added_at
            from public.workspace_repositories wr
            where wr.repository_id = p_repository_id and wr.workspace_id is not null
            group by wr.workspace_id
        ),
        shown as (
            select h.id, h.added_at, c.id is not null as counts
            from holding h
            left join counting c using (id)
            order by counts desc, h.added_at, h.id
            limit p_most
        )
        select jsonb_build_object(
            'count', (select count(*) from holding),
            'shown', array(
                select jsonb_strip_nulls(jsonb_build_object(
                    'id', s.id, 'name', n.names -> s.id, 'added_at', priorityd.time_told(s.added_at), 'counts', s.counts
                ))
                from shown s
                cross join (select priorityd.workspace_names(array(select id from shown)) as names) n
                order by s.counts desc, s.added_at, s.id
            )
        )
    $$;

    -- The tracked rows of a repository, each with what it should be; the most relevant one comes first.
    create or replace function priorityd.explained_rows(p_repository_id uuid, p_most integer)
    returns jsonb language sql stable as $$
        select to_jsonb(array(
            select jsonb_build_object(
                'id', s.id,
                'priority', s.priority,
                'is_workspace_repo', s.is_workspace_repo,
                'workspace_count', s.workspace_count,
                'manual_priority', s.manual_priority,
                'tracking_enabled', s.tracking_enabled,
                'expected_priority', d.new_priority,
                'correct', not d.wrong
            )
            from (
                select tr.* from public.tracked_repositories tr
                where tr.repository_id = p_repository_id
                order by tr.id
                limit p_most
            ) s
            cross join lateral priorityd.decide(array[s.id]) d
            order by priorityd.rank(d.new_priority::text), s.id
        ))
    $$;

    -- Everything that explains why a repository has the priority that it has: its row (`other_rows` where the application
    -- has several), the workspaces with a membership, and in `expected` what those that count make of it.
    create or replace function public.explain_repository_priority(p_repository_id uuid)
    returns jsonb language plpgsql stable
    set search_path = public, extensions
    set statement_timeout = '10s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        c_shown constant integer := 100;
        c_changes constant integer := 10;
        v_rows jsonb;
        v_workspaces jsonb;
        v_count constant integer := (
            select count(distinct m.workspace_id) from priorityd.memberships() m where m.repository_id = p_repository_id
        );
    begin
        perform priorityd.check_repository(p_repository_id);
        v_rows := priorityd.explained_rows(p_repository_id, c_shown);
        v_workspaces := priorityd.holding_workspaces(p_repository_id, c_shown);
        if v_rows = '[]' and v_workspaces ->> 'count' = '0' then
            raise exception 'repository % is neither tracked nor in a workspace', priorityd.known_as(p_repository_id)
                using errcode = 'PT404',
                      hint = 'The id of a repository is what tracked_repositories.repository_id holds.';
        end if;
        return jsonb_build_object(
            'repository_id', p_repository_id,
            'name', (select n.name from priorityd.repository_names(array[p_repository_id]) n),
            'tracked', v_rows -> 0,
            'other_rows', v_rows - 0,
            'workspaces', v_workspaces -> 'shown',
            'workspaces_in_all', v_workspaces -> 'count',
            'expected', jsonb_build_object(
                'priority', coalesce(
                    v_rows #>> '{0,expected_priority}', case when v_count > 0 then 'high' else 'medium' end
                ),
                'is_workspace_repo', v_count > 0,
                'workspace_count', v_count
            ),
            'correct', not v_rows @> '[{"correct": false}]',
            'last_changes', array(
                select to_jsonb(c)
                from (
                    select ch.id, ch.tracked_repository_id, ch.old_priority, ch.new_priority, ch.old_is_workspace_repo,
                        ch.is_workspace_repo, ch.workspace_count, ch.old_manual_priority, ch.manual_priority, ch.trigger,
                        ch.changed_at, ch.dispatched_at
                    from public.repository_priority_changes ch
                    where ch.repository_id = p_repository_id
                ) c
                order by c.id desc
                limit c_changes
            ),
            'changes_in_all', (
                select count(*) from public.repository_priority_changes ch where ch.repository_id = p_repository_id
            )
        );
    end
    $$;

    -- Of tracked rows whose flag disagrees with membership: by how much counting memberships differs from counting flags,
    -- of all and of those that are not high. The ids are what priorityd.mismatched_between found; a row without a repository
    -- that has the flag contradicts itself.
    create or replace function priorityd.misflagged(p_repository_ids uuid[], out held bigint, out inversions bigint)
    language sql stable as $$
        select coalesce(sum(d.difference), 0), coalesce(sum(d.difference) filter (where not d.is_high), 0)
        from (
            select exists (
                    select from priorityd.memberships() m where m.repository_id = tr.repository_id
                )::integer - coalesce(tr.is_workspace_repo, false)::integer as difference,
                (tr.priority::text in ('critical', 'high')) is true as is_high
            from public.tracked_repositories tr
            where tr.repository_id = any (p_repository_ids)
            union all
            select -1, (tr.priority::text in ('critical', 'high')) is true
            from priorityd.tracked_rows() t
            join public.tracked_repositories tr on tr.id = t.id
            where t.drifted and t.repository_id is null and t.is_workspace_repo
        ) d
    $$;

    -- Numbers for the dashboards. Cheap on a large table: the counts come from one index-only scan of
    -- idx_tracked_repos_workspace_priority (some 100 ms for a million rows), the untracked from the sweep's comparison of
    -- two indexes, and the outbox from the index of its pending rows. held and inversions count memberships and not flags:
    -- a row that can't be written has the wrong flag too.
    -- Without the outbox the rows on record are an audit trail: nothing is pending.
    create or replace function public.workspace_priority_snapshot()
    returns jsonb language plpgsql stable
    set search_path = public, extensions
    set statement_timeout = '30s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_repositories jsonb;
        v_held bigint;
        v_inversions bigint;
        v_mismatched constant uuid[] := array(select priorityd.mismatched_between(null, null));
        v_outbox jsonb := '{"pending": 0, "oldest_seconds": 0, "abandoned": 0}';
    begin
        select coalesce(jsonb_agg(to_jsonb(g) order by g.is_workspace_repo desc, g.priority), '[]'),
            coalesce(sum(g.count) filter (where g.is_workspace_repo), 0),
            coalesce(sum(g.count) filter (
                where g.is_workspace_repo and (g.priority::text in ('critical', 'high')) is not true
            ), 0)
        into v_repositories, v_held, v_inversions
        from (
            select tr.is_workspace_repo, tr.priority, count(*) as count
            from public.tracked_repositories tr
            group by tr.is_workspace_repo, tr.priority
        ) g;
        select v_held + d.held, v_inversions + d.inversions into v_held, v_inversions
        from priorityd.misflagged(v_mismatched) d;
        if to_regclass('priorityd.outbox') is not null then
            v_outbox := public.priority_outbox_depth();
        end if;
        return jsonb_build_object(
            'repositories', v_repositories,
            'held', v_held,
            'inversions', v_inversions,
            'untracked', priorityd.count_untracked(v_mismatched),
            'outbox_pending', v_outbox -> 'pending',
            'outbox_oldest_seconds', v_outbox -> 'oldest_seconds',
            'outbox_abandoned', v_outbox -> 'abandoned',
            'schema_version', (select max(m.set_number) from priorityd.migrations m),
            'taken_at', clock_timestamp()
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
