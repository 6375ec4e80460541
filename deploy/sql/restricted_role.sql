-- A role for the daemon, to be used instead of service_role: it may call the daemon's functions, read what they read, and
-- write nothing of the application's but four columns of tracked_repositories and, in background_jobs, ordered jobs.
--
-- Run it as the owner of the application's tables, once, after the migrations (psql, or the SQL editor). Upgrades need no
-- second run, and one does no harm. Run it again if background_jobs is created later. docs/security.md describes how to
-- make the role's token; drop_restricted_role.sql undoes it.
--
-- It is one statement that commits after each table: it waits 1 s at most for a lock, and holds none while it waits for
-- another. So it can't be run inside a transaction.

do $role$
declare
    v_table regclass;
    v_command text;
    v_columns name[];
    v_listed text;
begin
    if to_regclass('priorityd.migrations') is null then
        raise exception 'priorityd is not installed in this database' using hint = 'Apply its migrations first.';
    end if;
    if to_regrole('priorityd') is null then
        -- It neither logs in nor bypasses row level security: the policies below define what it sees.
        create role priorityd nologin noinherit nobypassrls;
    end if;
    -- PostgREST logs in as authenticator and becomes the role that a token names.
    grant priorityd to authenticator;
    grant usage on schema public, priorityd to priorityd;
    commit;

    -- The application's tables. For the first three, all columns: functions handle whole rows, whatever columns the
    -- application has.
    for v_table, v_command, v_columns in
        select to_regclass('public.' || r.name), r.command, r.columns
        from (
            values
                ('tracked_repositories', 'select', null),
                ('workspace_repositories', 'select', null),
                ('background_jobs', 'select', null),
                ('workspaces', 'select', '{id, is_active}'),
                ('repositories', 'select', '{id, owner, name}'),
                ('tracked_repositories', 'update', '{priority, is_workspace_repo, workspace_count, manual_priority}'),
                ('background_jobs', 'update', '{payload, status, started_at, completed_at, failed_at, error}'),
                ('background_jobs', 'insert', '{id, type, payload, status, repository_id, created_at}')
        ) r (name, command, columns)
        where to_regclass('public.' || r.name) is not null
    loop
        select '(' || string_agg(format('%I', a.attname), ', ') || ')' into v_listed from pg_attribute a
        where a.attrelid = v_table and a.attname = any (v_columns) and not a.attisdropped;
        continue when v_columns is not null and v_listed is null;
        execute format('grant %s %s on %s to priorityd', v_command, v_listed, v_table);
        -- Where row level security is on, a role without a policy sees an empty table, and to the daemon that would
        -- mean: no repository is in a workspace.
        perform priorityd.let_see(v_table, 'priorityd', v_command);
        commit;
    end loop;

    for v_table in select to_regclass(substr(o.name, 7)) from priorityd.public_objects() o where o.name like 'table %' loop
        perform priorityd.let_see(v_table, 'priorityd', 'all');
        commit;
    end loop;
    -- Our own objects: granted to every role with usage on the schema priorityd, by each migration.
    perform priorityd.grant_access();
end
$role$;
