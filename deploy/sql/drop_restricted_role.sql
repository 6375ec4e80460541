-- Undoes restricted_role.sql: the role, its rights and its policies. Do it after the daemon has another key.
do $$
begin
    if exists (select from pg_roles where rolname = 'priorityd') then
        -- Whoever is no superuser may drop what a role has only as a member of it.
        execute format('grant priorityd to %I', current_user);
        drop owned by priorityd;
        drop role priorityd;
    end if;
end
$$;
