-- Undoes 20250103000300_add_workspace_priority_reports.sql. Stop the daemon before.

drop function if exists public.workspace_priority_snapshot();
drop function if exists public.check_workspace_priorities();
drop function if exists public.beat_workspace_priorities(uuid);
drop function if exists public.workspace_priority_schema_version();
drop function if exists public.explain_repository_priority(uuid);
drop function if exists public.get_workspace_repository_ids(uuid, integer);
drop function if exists public.get_repository_priorities(uuid[]);

do $$
begin
    if to_regclass('public.workspace_priority_migrations') is not null then
        delete from public.workspace_priority_migrations where version = '20250103000300';
    end if;
end
$$;

notify pgrst, 'reload schema';
