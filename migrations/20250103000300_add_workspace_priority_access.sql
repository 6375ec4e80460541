-- Which roles may call and read our objects, and whether a caller sees everything that priorities depend on.

do $functions$
begin
    if not priorityd.start_unit('20250103000300 functions', 1, '{20250103000200 functions}') then
        return;
    end if;

    -- Functions and tables of ours in public, as GRANT and REVOKE name them.
    create or replace function priorityd.public_objects()
    returns table (name text, rights text[], acl aclitem[])
    language sql stable as $$
        select format('function %s', p.oid::regprocedure), array['execute'], coalesce(p.proacl, acldefault('f', p.proowner))
        from pg_proc p
        where p.pronamespace = 'public'::regnamespace
            and p.proname = any (array(select unnest(m.functions) from priorityd.migrations m))
        union all
        select format('table %s', c.oid::regclass), array['select', 'insert', 'update', 'delete'], c.relacl
        from pg_class c
        where c.oid in (select to_regclass(substr(n.what, 7)) from priorityd.created n where n.what like 'table %')
    $$;

    -- Lets a role to which row level security applies see and change every row of a table. The policy takes the
    -- strongest lock, so it is left alone where it is there already.
    create or replace function priorityd.let_see(p_table regclass, p_role name, p_command text)
    returns void language plpgsql as $$
    declare
        v_policy constant name := p_role || '_' || p_command;
    begin
        if exists (select from pg_policy p where p.polrelid = p_table and p.polname = v_policy) then
            return;
        end if;
        perform set_config('lock_timeout', '1s', true);
        execute format(
            'create policy %I on %s for %s to %I %s %s', v_policy, p_table, p_command, p_role,
            case when p_command <> 'insert' then 'using (true)' end,
            case when p_command <> 'select' then 'with check (true)' end
        );
    end
    $$;

    -- Our objects are for service_role and the roles with usage on the schema priorityd, and for no role that got them by
    -- default privileges. Correct privileges are left alone, so that nothing waits for them.
    create or replace function priorityd.grant_access()
    returns void language plpgsql as $$
    declare
        v_name text;
        v_holder text;
        v_object record;
        v_role record;
        v_rights text;
    begin
        if to_regrole('service_role') is not null and not has_schema_privilege('service_role', 'priorityd', 'usage') then
            grant usage on schema priorityd to service_role;
        end if;
        for v_name, v_holder in
            select o.name, r.name
            from (
                select p.name, p.acl from priorityd.public_objects() p
                union all
                select 'schema priorityd', n.nspacl from pg_namespace n where n.nspname = 'priorityd'
            ) o
            cross join lateral (
                select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end as name
                from aclexplode(o.acl) a
                where a.grantee in (0, to_regrole('anon'), to_regrole('authenticated'))
            ) r
        loop
            execute format('revoke all on %s from %s', v_name, v_holder);
        end loop;

        for v_role in
            select r.oid, r.rolname, r.rolbypassrls
            from pg_namespace n
            cross join lateral aclexplode(n.nspacl) a
            join pg_roles r on r.oid = a.grantee
            where n.nspname = 'priorityd' and a.privilege_type = 'USAGE' and a.grantee <> n.nspowner
        loop
            for v_object in
                select o.name, o.rights, o.acl from priorityd.public_objects() o
                union all
                select format('table %s', c.oid::regclass), case
                        when c.relname in ('migrations', 'created', 'indexes') then array['select']
                        else array['select', 'insert', 'update', 'delete']
                    end, c.relacl
                from pg_class c
                where c.relnamespace = 'priorityd'::regnamespace and c.relkind = 'r'
            loop
                select string_agg(r.word, ', ') into v_rights from unnest(v_object.rights) r (word)
                where not exists (
                    select from aclexplode(v_object.acl) a
                    where a.grantee = v_role.oid and lower(a.privilege_type) = r.word
                );
                if v_rights is not null then
                    execute format('grant %s on %s to %I', v_rights, v_object.name, v_role.rolname);
                end if;
            end loop;
            -- Those in the schema priorityd have row level security only if an event trigger of the application's enables it.
            if not v_role.rolbypassrls then
                perform priorityd.let_see(c.oid, v_role.rolname, 'all')
                from pg_class c
                where c.relkind = 'r' and c.relrowsecurity and (
                    c.relnamespace = 'priorityd'::regnamespace
                    or format('table %s', c.oid::regclass) in (select o.name from priorityd.public_objects() o)
                );
            end if;
        end loop;
        perform pg_notify('pgrst', 'reload schema');
    end
    $$;

    -- Whether row level security may hide rows of the table from the role that asks: unless it does not apply to the
    -- role, a policy has to let all rows through, and none may take some away.
    create or replace function priorityd.may_hide_rows(p_table regclass, p_command "char" default 'r')
    returns boolean language sql stable as $$
        select c.relrowsecurity
            and not (select r.rolsuper or r.rolbypassrls from pg_roles r where r.rolname = current_user)
            and (c.relforcerowsecurity or not pg_has_role(c.relowner, 'usage'))
            and (
                select count(*) filter (where p.polpermissive and p.lets_all) = 0
                    or count(*) filter (where not p.polpermissive and not p.lets_all) > 0
                from (
                    select p.polpermissive, pg_get_expr(p.polqual, p.polrelid) is not distinct from 'true' as lets_all
                    from pg_policy p
                    where p.polrelid = c.oid and p.polcmd in ('*', p_command)
                        and exists (
                            select from unnest(p.polroles) r (role)
                            where case when r.role = 0 then true else pg_has_role(r.role, 'usage') end
                        )
                ) p
            )
        from pg_class c
        where c.oid = p_table
    $$;

    -- The tables that priorities depend on and of which the caller may not see or change every row.
    create or replace function priorityd.hidden_tables()
    returns text[] language sql stable as $$
        select array(
            select distinct t.name
            from (
                values ('tracked_repositories', 'r'), ('tracked_repositories', 'w'), ('workspace_repositories', 'r'),
                    (
                        (select 'workspaces' from pg_proc p
                         where p.oid = 'priorityd.default_memberships()'::regprocedure and p.prosrc like '%public.workspaces %'),
                        'r'
                    )
            ) t (name, command)
            where priorityd.may_hide_rows(to_regclass('public.' || t.name), t.command::"char")
            order by t.name
        )
    $$;

    -- A hidden membership must not look like one that has ended, nor a missing privilege like rows refused one by one.
    create or replace function priorityd.demand_sight()
    returns void language plpgsql stable as $$
    declare
        v_hidden constant text[] := priorityd.hidden_tables();
    begin
        if v_hidden <> '{}' then
            raise exception 'row level security may hide rows of % from the role %: nothing was done',
                array_to_string(v_hidden, ', '), current_user
                using errcode = 'PT503',
                      hint = 'The role needs BYPASSRLS, or policies "using (true)" and no restrictive policy that applies to it.';
        end if;
        if not has_column_privilege('public.tracked_repositories', 'priority', 'update') then
            raise exception 'the role % may not write tracked_repositories', current_user
                using errcode = 'insufficient_privilege', hint = format(
                    'grant update (priority, is_workspace_repo, workspace_count, manual_priority)'
                    ' on public.tracked_repositories to %I', current_user);
        end if;
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- What all functions share
    --
    -- Settings are those of the functions in public, which call these. Their search path is the one that the application's
    -- own triggers, checks and policies see when it writes through PostgREST; our own names are always qualified.
    -- lock_timeout counts from the moment a lock is waited for, so setting it on a function works everywhere.
    -- statement_timeout is armed before a function starts: in psql the setting comes too late for the call itself.
    -- PostgREST reads it from the function and sets it for the transaction, as it does with default_transaction_isolation.
    -- ---------------------------------------------------------------------------------------------------------------

    -- Checks all deferred constraints now, but leaves them deferred: the caller's transaction may still rely on that, so the
    -- setting is rolled back.
    create or replace function priorityd.check_deferred()
    returns void language plpgsql as $$
    declare
        c_taken_back constant text := 'PT299';
    begin
        set constraints all immediate;
        raise exception using errcode = c_taken_back;
    exception
        when sqlstate 'PT299' then
            null;
    end
    $$;

    -- To be called after a trigger of the application had to wait for a lock. By then another session may be waiting for a
    -- row of this transaction, which must therefore not wait again: the two could deadlock, and PostgreSQL could end the
    -- other one.
    create or replace function priorityd.wait_no_more(p_state text)
    returns void language plpgsql as $$
    begin
        if p_state in ('55P03', '40P01') then
            perform set_config('lock_timeout', '1ms', true);
        end if;
    end
    $$;

    create or replace function priorityd.check_trigger(p_trigger text)
    returns void language plpgsql immutable as $$
    begin
        if (p_trigger = any (priorityd.triggers())) is not true then
            raise exception 'p_trigger is %, but must be one of: %',
                coalesce(quote_literal(p_trigger), 'null'), array_to_string(priorityd.triggers(), ', ')
                using errcode = 'invalid_parameter_value';
        end if;
    end
    $$;

    create or replace function priorityd.check_limit(p_limit integer)
    returns void language plpgsql immutable as $$
    begin
        if (p_limit between 1 and 100000) is not true then
            raise exception 'p_limit is %, but must be between 1 and 100000', coalesce(p_limit::text, 'null')
                using errcode = 'invalid_parameter_value';
        end if;
    end
    $$;

    -- Numbers that are not finite are outside every range.
    create or replace function priorityd.check_range(
        p_name text, p_value double precision, p_least double precision, p_most double precision
    )
    returns void language plpgsql immutable as $$
    begin
        if (p_value between p_least and p_most) is not true then
            raise exception '% is %, but must be between % and %', p_name, coalesce(p_value::text, 'null'), p_least, p_most
                using errcode = 'invalid_parameter_value';
        end if;
    end
    $$;

    create or replace function priorityd.check_daemon(p_daemon_id uuid)
    returns void language plpgsql immutable as $$
    begin
        if p_daemon_id is null then
            raise exception 'p_daemon_id is null, but must be the id of a daemon' using errcode = 'invalid_parameter_value';
        end if;
    end
    $$;

    create or replace function priorityd.check_repository(p_repository_id uuid)
    returns void language plpgsql immutable as $$
    begin
        if p_repository_id is null then
            raise exception 'p_repository_id is null, but must be the id of a repository'
                using errcode = 'invalid_parameter_value';
        end if;
    end
    $$;

    -- Which of these columns exist in a table of the application and are readable by the caller.
    create or replace function priorityd.readable_columns(p_table text, p_columns name[])
    returns name[] language sql stable as $$
        select array(
            select a.attname from pg_attribute a
            where a.attrelid = to_regclass(p_table) and a.attname = any (p_columns) and not a.attisdropped
                and has_column_privilege(a.attrelid, a.attnum, 'select')
        )
    $$;

    -- Where repositories have names. Both tables are the application's: they may lack those columns, and the caller may
    -- not be allowed to read them.
    create or replace function priorityd.named_tables(out of_repositories boolean, out of_tracked boolean)
    language plpgsql stable as $$
    begin
        of_repositories := cardinality(priorityd.readable_columns('public.repositories', '{id, owner, name}')) = 3
            and (priorityd.base_type(to_regclass('public.repositories'), 'id')).type = 'uuid'::regtype;
        of_tracked := cardinality(
            priorityd.readable_columns('public.tracked_repositories', '{organization_name, repository_name}')
        ) = 2;
    end
    $$;

    -- The names of repositories, `owner/name`: from repositories, else from the columns of the tracked row.
    create or replace function priorityd.repository_names(p_repository_ids uuid[])
    returns table (repository_id uuid, name text)
    language plpgsql stable as $$
    declare
        v_named constant record := priorityd.named_tables();
        v_sources text[] := '{}';
    begin
        if p_repository_ids = '{}' then
            return;
        end if;
        if v_named.of_repositories then
            v_sources := v_sources || 'select r.id, 1 as rank, r.owner::text || ''/'' || r.name::text as name
                from public.repositories r where r.id = any ($1)'::text;
        end if;
        if v_named.of_tracked then
            v_sources := v_sources || 'select tr.repository_id as id, 2 as rank,
                    concat_ws(''/'', tr.organization_name, tr.repository_name) as name
                from public.tracked_repositories tr
                where tr.repository_id = any ($1) and tr.repository_name is not null'::text;
        end if;
        if v_sources <> '{}' then
            return query execute format(
                'select distinct on (s.id) s.id, s.name from (%s) s where s.name is not null order by s.id, s.rank',
                array_to_string(v_sources, ' union all ')
            ) using p_repository_ids;
        end if;
    end
    $$;

    -- The names of those of these tracked rows that have no repository yet, from their own columns.
    create or replace function priorityd.row_names(p_ids uuid[])
    returns table (id uuid, name text)
    language plpgsql stable as $$
    begin
        if p_ids <> '{}' and (priorityd.named_tables()).of_tracked then
            return query execute
                'select tr.id, concat_ws(''/'', tr.organization_name, tr.repository_name)
                from public.tracked_repositories tr
                where tr.id = any ($1) and tr.repository_id is null and tr.repository_name is not null'
            using p_ids;
        end if;
    end
    $$;

    -- The reverse: the repositories with these names. Several may have the same one; and only a name that
    -- priorityd.repository_names gives counts. Owners and names may contain a slash.
    create or replace function priorityd.repositories_named(p_names text[])
    returns table (repository_id uuid, name text)
    language plpgsql stable as $$
    declare
        v_named constant record := priorityd.named_tables();
        v_sources text[] := '{}';
        v_ids uuid[];
    begin
        if v_named.of_repositories then
            v_sources := v_sources || 'select r.id from halves h
                join public.repositories r on r.owner::text = h.owner and r.name::text = h.name'::text;
        end if;
        if v_named.of_tracked then
            v_sources := v_sources || 'select tr.repository_id from halves h
                join public.tracked_repositories tr
                on tr.organization_name::text = h.owner and tr.repository_name::text = h.name'::text;
        end if;
        if v_sources <> '{}' then
            execute format(
                'with halves as (
                    select array_to_string(w.words[:k], ''/'') as owner, array_to_string(w.words[k + 1:], ''/'') as name
                    from (select string_to_array(n, ''/'') as words from unnest($1) n) w
                    cross join generate_series(1, cardinality(w.words) - 1) k
                )
                select array(%s)',
                array_to_string(v_sources, ' union ')
            ) into v_ids using p_names;
            return query select n.* from priorityd.repository_names(v_ids) n where n.name = any (p_names);
        end if;
    end
    $$;

    -- A repository in a message: `owner/name (id)`, or its id.
    create or replace function priorityd.known_as(p_repository_id uuid)
    returns text language sql stable as $$
        select coalesce(
            (select format('%s (%s)', n.name, n.repository_id) from priorityd.repository_names(array[p_repository_id]) n),
            p_repository_id::text
        )
    $$;

    perform priorityd.grant_access();
end
$functions$;
