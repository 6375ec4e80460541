-- Undoes 20250103000000_add_workspace_priority_tracking.sql. The audit trail is lost with its table: save
-- repository_priority_changes first if it matters. Stop the daemon before.

do $$
declare
    v_created text[];
    v_name text;
begin
    if to_regclass('public.workspace_priority_migrations') is null then
        raise notice 'nothing to undo: workspace priority tracking is not there';
        return;
    end if;
    if exists (select from public.workspace_priority_migrations where version > '20250103000000') then
        raise exception 'newer migrations of workspace priorities are still applied'
            using hint = 'Undo them first, the newest before the others.';
    end if;
    perform set_config('lock_timeout', '15s', true);

    select created into v_created from public.workspace_priority_migrations where version = '20250103000000';

    -- Repositories that are high because of a workspace fall back; overrides stay. Left high, they would
    -- look like overrides to anyone who applies the migration again.
    update public.tracked_repositories
    set is_workspace_repo = false,
        workspace_count = 0,
        priority = case when is_workspace_repo then coalesce(manual_priority, 'medium') else priority end
    where is_workspace_repo or workspace_count <> 0;

    drop index if exists public.idx_tracked_repos_priority_drift;
    drop index if exists public.idx_tracked_repos_workspace_counts;

    for v_name in select substr(c, 7) from unnest(v_created) as u (c) where c like 'index %' loop
        execute format('drop index if exists public.%I', v_name);
    end loop;
    -- Before the columns go: a comment on a column that is not there can't be removed.
    for v_name in select substr(c, 9) from unnest(v_created) as u (c) where c like 'comment %' loop
        execute format('comment on column public.tracked_repositories.%I is null', v_name);
    end loop;
    for v_name in select substr(c, 8) from unnest(v_created) as u (c) where c like 'column %' loop
        execute format('alter table public.tracked_repositories drop column if exists %I', v_name);
    end loop;
    if 'type public.repository_priority' = any (v_created) then
        drop type if exists public.repository_priority;
    end if;

    drop table if exists public.repository_priority_changes;
    drop table public.workspace_priority_migrations;
end
$$;
