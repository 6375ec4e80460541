-- What a Supabase project's database has before anything is applied. A superuser runs it, in the place of Supabase's
-- own `supabase_admin`; `postgres`, who owns the project's database and applies the migrations, is not a superuser.
-- The facts are those of supabase/postgres, migrations/db, as of its commit 386580b (PostgreSQL 17):
--   init-scripts/00000000000000-initial-schema.sql              API roles, default privileges
--   init-scripts/00000000000003-post-setup.sql                  search_path of postgres
--   migrations/10000000000000_demote-postgres.sql               attributes of postgres
--   migrations/20230201083204_grant_auth_roles_to_postgres.sql, 20230306081037_grant_pg_monitor_to_postgres.sql,
--   20240606060239_grant_predefined_roles_to_postgres.sql,
--   20250605172253_grant_with_admin_to_postgres_16_and_above.sql  memberships of postgres
--   migrations/20221028101028_set_authenticator_timeout.sql,
--   20231130133139_set_lock_timeout_to_authenticator_role.sql   timeouts of authenticator
--   migrations/20230529180330_alter_api_roles_for_inherit.sql
--   migrations/20260923021047_update_pgrst_watch_triggers.sql   when PostgREST is told of a change
-- Left out: what only its extensions can do (supautils, safeupdate), and the event triggers that wait for one of
-- pg_cron, pg_graphql and pg_net.

-- Roles belong to the server, which may have them from an earlier run; none that is there is changed.
do $$
begin
    if to_regrole('postgres') is null then
        create role postgres login nosuperuser createdb createrole replication bypassrls;
        alter role postgres set search_path = "$user", public, extensions;
        grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres;
    end if;
    if to_regrole('anon') is null then
        create role anon;
        alter role anon set statement_timeout = '3s';
    end if;
    if to_regrole('authenticated') is null then
        create role authenticated;
        alter role authenticated set statement_timeout = '8s';
    end if;
    if to_regrole('service_role') is null then
        create role service_role bypassrls;
    end if;
    if to_regrole('authenticator') is null then
        create role authenticator login noinherit;
        alter role authenticator set statement_timeout = '8s';
        alter role authenticator set lock_timeout = '8s';
    end if;
end
$$;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to postgres with admin option;

create schema extensions;
grant usage on schema public, extensions to postgres, anon, authenticated, service_role;
grant create on schema extensions to postgres;
alter default privileges for role postgres, current_user in schema public
    grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres, current_user in schema public
    grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role postgres, current_user in schema public
    grant all on sequences to postgres, anon, authenticated, service_role;

-- A transaction notifies once, however many commands of it change the schema.
create function extensions.pgrst_ddl_watch() returns event_trigger language plpgsql as $$
begin
    if exists (
        select from pg_event_trigger_ddl_commands() c
        where c.command_tag in (
            'CREATE SCHEMA', 'ALTER SCHEMA', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE',
            'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'CREATE VIEW', 'ALTER VIEW', 'CREATE MATERIALIZED VIEW',
            'ALTER MATERIALIZED VIEW', 'CREATE FUNCTION', 'ALTER FUNCTION', 'CREATE TYPE', 'ALTER TYPE',
            'CREATE RULE', 'COMMENT', 'CREATE TRIGGER'
        ) and c.schema_name is distinct from 'pg_temp'
    ) then
        notify pgrst, 'reload schema';
    end if;
end
$$;
create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.pgrst_ddl_watch();

create function extensions.pgrst_drop_watch() returns event_trigger language plpgsql as $$
begin
    if exists (
        select from pg_event_trigger_dropped_objects() o
        where not o.is_temporary and o.object_type in (
            'schema', 'table', 'foreign table', 'view', 'materialized view', 'function', 'trigger', 'type', 'rule'
        )
    ) then
        notify pgrst, 'reload schema';
    end if;
end
$$;
create event trigger pgrst_drop_watch on sql_drop execute function extensions.pgrst_drop_watch();
