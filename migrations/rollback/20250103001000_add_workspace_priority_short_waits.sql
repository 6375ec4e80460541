-- Undoes 20250103001000_add_workspace_priority_short_waits.sql.

-- Functions that are gone already stay away.
do $$
declare
    v_function regprocedure;
begin
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace
            and p.proname in (
                'apply_workspace_priorities', 'lock_and_write_workspace_priorities', 'sync_workspace_priorities'
            )
    loop
        execute format('alter function %s set lock_timeout = %L', v_function, '1s');
    end loop;
    if to_regclass('public.workspace_priority_migrations') is not null then
        delete from public.workspace_priority_migrations where version = '20250103001000';
    end if;
end
$$;

notify pgrst, 'reload schema';
