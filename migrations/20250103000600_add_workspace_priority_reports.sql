-- What others ask about workspace priorities: job queueing, explanations, dashboards.

do $functions$
begin
    if not priorityd.start_unit('20250103000600 functions', 1, '{20250103000500 functions}', array[
        'get_repository_priorities', 'get_workspace_repository_ids', 'explain_repository_priority',
        'workspace_priority_snapshot'
    ]) then
        return;
    end if;

    -- What job queueing needs to know. Untracked repositories are absent.
    create or replace function public.get_repository_priorities(p_repository_ids uuid[])
    returns jsonb language sql stable
    set search_path = public, extensions
    set statement_timeout = '10s'
    as $$
        select coalesce(
            jsonb_object_agg(
                tr.repository_id,
                jsonb_build_object(
                    'priority', tr.priority,
                    'is_workspace_repo', tr.is_workspace_repo,
                    'workspace_count', tr.workspace_count
                )
            ),
            '{}'
        )
        from public.tracked_repositories tr
        where tr.repository_id = any (p_repository_ids);
    $$;

    -- The distinct repositories that are in a workspace, a page at a time.
    create or replace function public.get_workspace_repository_ids(
        p_after uuid default null, p_limit integer default 10000
    )
    returns jsonb language plpgsql stable
    set search_path = public, extensions
    set statement_timeout = '30s'
    set plan_cache_mode = force_custom_plan
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

    -- The workspaces that hold a repository, whether each counts, and what the application calls it.
    create or replace function priorityd.holding_workspaces(p_repository_id uuid)
    returns jsonb language plpgsql stable as $$
    declare
        v_workspaces jsonb;
        v_names jsonb := '{}';
    begin
        if has_column_privilege(to_regclass('public.workspaces'), 'id', 'select') and exists (
            select from pg_attribute a
            where a.attrelid = to_regclass('public.workspaces') and a.attname = 'name' and not a.attisdropped
                and has_column_privilege(a.attrelid, a.attnum, 'select')
        ) then
            execute 'select coalesce(jsonb_object_agg(w.id, w.name), ''{}'') from public.workspaces w
                where w.name is not null and w.id in (
                    select wr.workspace_id from public.workspace_repositories wr where wr.repository_id = $1
                )'
            into v_names using p_repository_id;
        end if;
        -- Columns that an application may not have are read through jsonb, where a missing one is null.
        select coalesce(
            jsonb_agg(
                jsonb_strip_nulls(jsonb_build_object(
                    'id', wr.workspace_id,
                    'name', v_names -> wr.workspace_id::text,
                    'added_at', to_jsonb(wr) -> 'added_at',
                    'counts', exists (
                        select from priorityd.memberships() m
                        where m.repository_id = p_repository_id and m.workspace_id = wr.workspace_id
                    )
                ))
                order by to_jsonb(wr) ->> 'added_at', wr.workspace_id
            ),
            '[]'
        )
        into v_workspaces
        from public.workspace_repositories wr
        where wr.repository_id = p_repository_id;
        return v_workspaces;
    end
    $$;

    -- Everything that explains why a repository has the priority that it has.
    create or replace function public.explain_repository_priority(p_repository_id uuid)
    returns jsonb language plpgsql stable
    set search_path = public, extensions
    set statement_timeout = '10s'
    as $$
    declare
        v_tracked public.tracked_repositories;
        v_workspaces constant jsonb := priorityd.holding_workspaces(p_repository_id);
        v_count constant integer := (
            select count(distinct m.workspace_id) from priorityd.memberships() m where m.repository_id = p_repository_id
        );
        v_expected jsonb;
        v_correct boolean := true;
    begin
        select tr.* into v_tracked from public.tracked_repositories tr
        where tr.repository_id = p_repository_id
        order by tr.id
        limit 1;
        if v_tracked.id is not null then
            select jsonb_build_object(
                    'priority', d.new_priority,
                    'is_workspace_repo', d.is_workspace_repo,
                    'workspace_count', d.workspace_count
                ),
                not d.wrong
            into v_expected, v_correct
            from priorityd.decide(array[v_tracked.id]) d;
        elsif v_workspaces = '[]' then
            raise exception 'repository % is neither tracked nor in a workspace', p_repository_id
                using errcode = 'PT404',
                      hint = 'The id of a repository is what tracked_repositories.repository_id holds.';
        else
            v_expected := jsonb_build_object(
                'priority', case when v_count > 0 then 'high' else 'medium' end,
                'is_workspace_repo', v_count > 0,
                'workspace_count', v_count
            );
        end if;

        return jsonb_build_object(
            'repository_id', p_repository_id,
            'name', (select n.name from priorityd.repository_names(array[p_repository_id]) n),
            'tracked', case
                when v_tracked.id is not null then jsonb_build_object(
                    'id', v_tracked.id,
                    'priority', v_tracked.priority,
                    'is_workspace_repo', v_tracked.is_workspace_repo,
                    'workspace_count', v_tracked.workspace_count,
                    'manual_priority', v_tracked.manual_priority,
                    'tracking_enabled', v_tracked.tracking_enabled
                )
            end,
            'workspaces', v_workspaces,
            'expected', v_expected,
            'correct', v_correct,
            'last_changes', (
                select coalesce(jsonb_agg(to_jsonb(c) order by c.id desc), '[]')
                from (
                    select ch.id, ch.old_priority, ch.new_priority, ch.old_is_workspace_repo, ch.is_workspace_repo,
                        ch.workspace_count, ch.trigger, ch.changed_at, ch.dispatched_at
                    from public.repository_priority_changes ch
                    where ch.repository_id = p_repository_id
                    order by ch.id desc
                    limit 10
                ) c
            )
        );
    end
    $$;

    -- Of tracked rows whose flag disagrees with membership: by how much counting memberships differs from counting flags,
    -- of all and of those that are not high. The ids are what priorityd.mismatched_between found.
    create or replace function priorityd.misflagged(p_repository_ids uuid[], out held bigint, out inversions bigint)
    language sql stable as $$
        select coalesce(sum(d.difference), 0), coalesce(sum(d.difference) filter (where not d.is_high), 0)
        from (
            select exists (
                    select from priorityd.memberships() m where m.repository_id = tr.repository_id
                )::integer - coalesce(tr.is_workspace_repo, false)::integer as difference,
                tr.priority is not distinct from 'high' as is_high
            from public.tracked_repositories tr
            where tr.repository_id = any (p_repository_ids)
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
            coalesce(sum(g.count) filter (where g.is_workspace_repo and g.priority is distinct from 'high'), 0)
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
