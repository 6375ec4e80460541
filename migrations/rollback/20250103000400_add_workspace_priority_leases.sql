-- Undoes 20250103000400_add_workspace_priority_leases.sql. Stop the daemon before.

drop function if exists public.release_workspace_priority_lease(uuid);
drop function if exists public.hold_workspace_priority_lease(uuid, double precision);
drop table if exists public.workspace_priority_leases;

do $$
begin
    if to_regclass('public.workspace_priority_migrations') is not null then
        delete from public.workspace_priority_migrations where version = '20250103000400';
    end if;
end
$$;

notify pgrst, 'reload schema';
