-- Like the world policies, but the owner, which applies the migrations, has no BYPASSRLS, so it does not see its own rows.
do $$
begin
    if not exists (select from pg_roles where rolname = 'project_member') then
        create role project_member nologin;
    end if;
    execute format('grant create on database %I to project_member', current_database());
end
$$;
reassign owned by project_owner to project_member;
