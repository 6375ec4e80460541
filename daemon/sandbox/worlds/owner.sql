-- The tables and the publication belong to a role that is not a superuser, as on Supabase, where postgres applies the
-- migrations.
do $$
declare
    v_statement text;
begin
    if not exists (select from pg_roles where rolname = 'project_owner') then
        create role project_owner nologin bypassrls;
    end if;
    -- To transfer ownership, the current user must be a member of the new owner's role.
    execute format('grant project_owner to %I', current_user);
    execute format('grant create on database %I to project_owner', current_database());
    alter schema public owner to project_owner;
    for v_statement in
        select format('alter table %s owner to project_owner', c.oid::regclass)
        from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
        union all
        select format('alter type %s owner to project_owner', t.oid::regtype)
        from pg_type t where t.typnamespace = 'public'::regnamespace and t.typtype = 'e'
        union all
        select format('alter function %s owner to project_owner', p.oid::regprocedure)
        from pg_proc p where p.pronamespace = 'public'::regnamespace
    loop
        execute v_statement;
    end loop;
end
$$;
alter publication supabase_realtime owner to project_owner;
alter default privileges for role project_owner in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role project_owner in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges for role project_owner in schema public grant all on sequences to anon, authenticated, service_role;
