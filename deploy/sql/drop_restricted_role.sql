-- Undoes restricted_role.sql: the role, its privileges and its policies, one table at a time. Run it once the daemon has
-- another key, not inside a transaction.
do $role$
declare
    v_policy name;
    v_table regclass;
begin
    if to_regrole('priorityd') is null then
        return;
    end if;
    for v_policy, v_table in
        select p.polname, p.polrelid::regclass from pg_policy p where p.polroles = array['priorityd'::regrole::oid]
    loop
        perform set_config('lock_timeout', '1s', true);
        execute format('drop policy if exists %I on %s', v_policy, v_table);
        commit;
    end loop;
    perform set_config('lock_timeout', '1s', true);
    -- Only a member of a role, or a superuser, may drop what it owns.
    execute format('grant priorityd to %I', current_user);
    drop owned by priorityd;
    drop role priorityd;
end
$role$;
