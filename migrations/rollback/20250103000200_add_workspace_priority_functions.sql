-- Undoes 20250103000200_add_workspace_priority_functions.sql. Stop the daemon before.

drop function if exists public.rollback_workspace_priorities();
drop function if exists public.set_manual_priority(uuid, text);
drop function if exists public.resync_workspace_priorities_page(uuid, integer, text, boolean);
drop function if exists public.sweep_workspace_priorities(text, integer, boolean);
drop function if exists public.sync_workspace_priorities(uuid[], text, boolean);
drop function if exists public.count_untracked_repositories(uuid[]);
drop function if exists public.find_mismatched_repositories();
drop function if exists public.apply_workspace_priorities(uuid[], text, boolean, boolean, boolean, text);
drop function if exists public.write_workspace_priorities(uuid[], uuid[], text, boolean, boolean, text);
drop function if exists public.lock_tracked_repositories(uuid[], boolean);
drop function if exists public.decide_workspace_priorities(uuid[], boolean, text);
drop function if exists public.check_workspace_priority_arguments(text, integer);

do $$
begin
    if to_regclass('public.workspace_priority_migrations') is not null then
        delete from public.workspace_priority_migrations where version = '20250103000200';
    end if;
end
$$;

notify pgrst, 'reload schema';
