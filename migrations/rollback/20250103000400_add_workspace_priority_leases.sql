-- Undoes 20250103000400_add_workspace_priority_leases.sql. Stop the daemon before.

drop function if exists public.release_workspace_priority_lease(uuid);
drop function if exists public.hold_workspace_priority_lease(uuid, double precision);
drop table if exists public.workspace_priority_leases;

-- As it was before.
do $$
begin
    if to_regprocedure('public.lock_tracked_repositories(uuid[], boolean)') is not null then
        create or replace function public.lock_tracked_repositories(p_ids uuid[], p_skip_locked boolean)
        returns uuid[]
        language plpgsql
        set search_path = ''
        as $function$
begin
    if p_skip_locked then
        return array(
            select tr.id from public.tracked_repositories tr
            where tr.id = any (p_ids)
            order by tr.id
            for no key update skip locked
        );
    end if;
    return array(
        select tr.id from public.tracked_repositories tr
        where tr.id = any (p_ids)
        order by tr.id
        for no key update
    );
end
$function$;
    end if;
end
$$;

do $$
begin
    if to_regclass('public.workspace_priority_migrations') is not null then
        delete from public.workspace_priority_migrations where version = '20250103000400';
    end if;
end
$$;

notify pgrst, 'reload schema';
