-- Undoes restricted_role.sql: the role, its rights and its policies, one table at a time. Do it after the daemon has
-- another key. Not inside a transaction.
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
    -- Without being superuser one may drop what a role has only as a member of it.
    execute format('grant priorityd to %I', current_user);
    drop owned by priorityd;
    drop role priorityd;
end
$role$;
