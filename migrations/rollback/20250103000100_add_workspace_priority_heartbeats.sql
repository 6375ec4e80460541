-- Undoes 20250103000100_add_workspace_priority_heartbeats.sql. Stop the daemon before.

do $$
declare
    v_created text[];
    v_table regclass;
begin
    if to_regclass('public.workspace_priority_migrations') is null then
        raise notice 'nothing to undo: workspace priority tracking is not there';
        return;
    end if;
    perform set_config('lock_timeout', '15s', true);
    delete from public.workspace_priority_migrations where version = '20250103000100' returning created into v_created;

    -- Only tables that the migration added, and that nobody has taken out since.
    for v_table in
        select pr.prrelid
        from unnest(v_created) as u (c)
        join pg_publication_rel pr on pr.prrelid = to_regclass(substr(u.c, 11))
        join pg_publication p on p.oid = pr.prpubid and p.pubname = 'supabase_realtime'
        where u.c like 'published %'
    loop
        execute format('alter publication supabase_realtime drop table %s', v_table);
    end loop;

    drop table if exists public.workspace_priority_heartbeats;
end
$$;
