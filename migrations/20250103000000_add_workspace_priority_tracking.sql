-- Workspace priority tracking: what tracked_repositories knows about workspaces, and what counts as a membership.
--
-- How these files work. They form a numbered set; a file consists of units. A unit is one DO block, so that it is atomic
-- under every client, and first asks start_unit: a unit older than what is installed is skipped with a notice, one with
-- missing predecessors is refused. Applied again, in order, the set upgrades every earlier state. Tables, columns and
-- indexes are in separate units from functions, which change together. Outbox, ordered jobs and job telemetry are lines
-- of their own, each of which may be left out.
--
-- The application's schema is taken as it is found. `priority` may be an enum of any name in any schema, a text type, or
-- missing; workspace ids may be uuids, integers or texts; the columns may exist already, with nulls in them. Anything
-- unsupported is refused before a change is made. What is created in the application's own objects is recorded in
-- priorityd.created, so that rollback/uninstall.sql removes exactly that.
--
-- Adding columns locks tracked_repositories exclusively until the end of the transaction: seconds on a million rows.
-- Where that is too long, run the script in concurrently/ first: by setting priorityd.part to 'columns' it has this file
-- add the columns and stop, and does the rest without blocking anyone.

do $tables$
declare
    c_set constant integer := 1;
    v_installed integer;
begin
    if to_regclass('public.tracked_repositories') is null or to_regclass('public.workspace_repositories') is null then
        raise exception 'public.tracked_repositories and public.workspace_repositories must exist before this migration'
            using errcode = 'undefined_table',
                  hint = 'Apply the application''s own migrations first.';
    end if;
    -- Concurrent runs of the set wait for each other.
    perform pg_advisory_xact_lock(hashtext('priorityd.migrations'));
    if to_regclass('priorityd.migrations') is not null then
        execute 'select max(m.set_number) from priorityd.migrations m' into v_installed;
        if v_installed > c_set then
            return;
        end if;
    elsif to_regclass('public.repository_priority_changes') is not null then
        raise exception 'public.repository_priority_changes exists already and was not made by this migration'
            using errcode = 'duplicate_table',
                  hint = 'Rename that table: the audit trail of priority changes needs its name.';
    end if;

    if to_regnamespace('priorityd') is null then
        create schema priorityd;
    end if;
    if to_regclass('priorityd.migrations') is null then
        create table priorityd.migrations (
            unit text primary key,
            set_number integer not null,
            -- The functions in public that the unit defines.
            functions name[] not null default '{}',
            applied_at timestamptz not null default now()
        );
        -- What was created in the application's own objects: 'column manual_priority', 'index ...', 'published ...'.
        create table priorityd.created (what text primary key);
    end if;

    -- Whether to go on with a unit of this set, which requires these other units. The application's own functions are
    -- not replaced.
    create or replace function priorityd.start_unit(
        p_unit text, p_set integer, p_needs text[] default '{}', p_functions name[] default '{}'
    )
    returns boolean language plpgsql as $$
    declare
        v_newest integer;
        v_missing text;
        v_taken text;
    begin
        perform pg_advisory_xact_lock(hashtext('priorityd.migrations'));
        select max(m.set_number) into v_newest from priorityd.migrations m;
        if v_newest > p_set then
            raise notice '% of priorityd''s set % is skipped: set % is installed', p_unit, p_set, v_newest;
            return false;
        end if;
        select string_agg(n.unit, ', ') into v_missing from unnest(p_needs) n (unit)
        where not exists (select from priorityd.migrations m where m.unit = n.unit and m.set_number = p_set);
        if v_missing is not null then
            raise exception '% of priorityd''s set % needs what is not applied yet: %', p_unit, p_set, v_missing
                using errcode = 'object_not_in_prerequisite_state',
                      hint = 'Apply all files of the set in their order; "priorityd migrations --into DIR" writes them.';
        end if;
        select string_agg(p.oid::regprocedure::text, ', ') into v_taken from pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.proname = any (p_functions)
            and not exists (select from priorityd.migrations m where p.proname = any (m.functions));
        if v_taken is not null then
            raise exception 'the application has a function of that name already: %', v_taken
                using errcode = 'duplicate_function', hint = 'Rename it, or leave this file out if its line is optional.';
        end if;
        insert into priorityd.migrations as m (unit, set_number, functions) values (p_unit, p_set, p_functions)
        on conflict (unit) do update
        set set_number = excluded.set_number, functions = excluded.functions, applied_at = now();
        return true;
    end
    $$;

    -- The base type of a column, below any domains; null if there is no such column.
    create or replace function priorityd.base_type(p_table regclass, p_column name, out type oid, out modifier integer)
    language plpgsql stable as $$
    begin
        select a.atttypid, a.atttypmod into type, modifier from pg_attribute a
        where a.attrelid = p_table and a.attname = p_column and not a.attisdropped;
        while exists (select from pg_type t where t.oid = type and t.typtype = 'd') loop
            select t.typbasetype, t.typtypmod into type, modifier from pg_type t where t.oid = type;
        end loop;
    end
    $$;

    -- Raises for keys of unsupported types.
    create or replace function priorityd.demand_keys()
    returns void language plpgsql stable as $$
    declare
        v_wrong text;
    begin
        select string_agg(format('%s.%s %s', n.table_name, n.column_name, coalesce(
            'is of type ' || format_type(a.atttypid, a.atttypmod), 'is missing')), ', ') into v_wrong
        from (values
            ('tracked_repositories', 'id', '{uuid}'::regtype[], ''),
            ('tracked_repositories', 'repository_id', '{uuid}', ''),
            ('workspace_repositories', 'repository_id', '{uuid}', ''),
            ('workspace_repositories', 'workspace_id', '{uuid,smallint,integer,bigint}', 'S')
        ) n (table_name, column_name, types, category)
        left join pg_attribute a
            on a.attrelid = to_regclass('public.' || n.table_name) and a.attname = n.column_name and not a.attisdropped
        left join pg_type t on t.oid = a.atttypid
        where (a.atttypid = any (n.types) or (t.typcategory = n.category and t.typtype = 'b')) is not true;
        if v_wrong is not null then
            raise exception 'priorityd can''t work with these keys: %', v_wrong
                using errcode = 'datatype_mismatch', hint = 'tracked_repositories.id and both repository_id must be of'
                    ' type uuid; workspace_repositories.workspace_id may be a uuid, an integer or a text.';
        end if;
    end
    $$;

    -- Raises if one of the two is not a table, and for columns that exist already and can't be written.
    create or replace function priorityd.demand_tables()
    returns void language plpgsql stable as $$
    declare
        c_table constant regclass := 'public.tracked_repositories';
        v_wrong text;
    begin
        select string_agg(c.relname, ', ' order by c.relname) into v_wrong from pg_class c
        where c.oid in (c_table, 'public.workspace_repositories'::regclass) and c.relkind not in ('r', 'p');
        if v_wrong is not null then
            raise exception 'priorityd needs tables, not views or foreign tables: %', v_wrong
                using errcode = 'wrong_object_type',
                      hint = 'Rename it, and give its name to the table; priorityd.memberships() may read what you like.';
        end if;
        select string_agg(format('tracked_repositories.%s is %s', a.attname, case
                when a.attgenerated = '' then 'of type ' || format_type(a.atttypid, a.atttypmod) else 'generated'
            end), ', ' order by a.attnum) into v_wrong
        from pg_attribute a
        join (values
            ('priority', null), ('manual_priority', null),
            ('is_workspace_repo', '{boolean}'::regtype[]), ('workspace_count', '{smallint,integer,bigint}')
        ) n (name, types) on n.name = a.attname
        where a.attrelid = c_table and not a.attisdropped
            and (a.attgenerated <> '' or (priorityd.base_type(c_table, a.attname)).type <> all (n.types));
        if v_wrong is not null then
            raise exception 'priorityd can''t write these columns: %', v_wrong
                using errcode = 'datatype_mismatch', hint = 'is_workspace_repo must be a boolean and workspace_count an'
                    ' integer, and none of them generated; rename or change it, then apply this migration again.';
        end if;
    end
    $$;

    -- Raises for a type of tracked_repositories.priority that priorities can't be written to.
    create or replace function priorityd.demand_priority()
    returns void language plpgsql stable as $$
    declare
        c_table constant regclass := 'public.tracked_repositories';
        v_declared text;
        v_is_domain boolean;
        v_type oid;
        v_name text;
        v_missing text[];
    begin
        select format_type(a.atttypid, a.atttypmod), t.typtype = 'd' into v_declared, v_is_domain
        from pg_attribute a join pg_type t on t.oid = a.atttypid
        where a.attrelid = c_table and a.attname = 'priority' and not a.attisdropped;
        -- A missing column will get this type, which may exist already.
        v_type := coalesce((priorityd.base_type(c_table, 'priority')).type, to_regtype('public.repository_priority'));
        v_name := format_type(v_type, null);
        if (select typtype from pg_type where oid = v_type) = 'e' then
            if v_is_domain then
                raise exception 'tracked_repositories.priority has the type %, a domain over the enum %', v_declared, v_name
                    using errcode = 'datatype_mismatch',
                          detail = 'PostgreSQL has no comparison for such a domain.',
                          hint = format('Change it to the enum, then apply this migration again:'
                              ' alter table public.tracked_repositories alter column priority type %s;', v_name);
            end if;
            select array_agg(n.label order by n.label) into v_missing
            from unnest(array['high', 'medium', 'low']) as n (label)
            where not exists (select from pg_enum e where e.enumtypid = v_type and e.enumlabel = n.label);
            if v_missing is not null then
                raise exception 'the enum % lacks %', v_name, array_to_string(v_missing, ', ')
                    using errcode = 'undefined_object',
                          detail = 'Priorities are written as the enum labels or texts high, medium and low.',
                          hint = format(
                              'Add what is missing in a transaction of its own, then apply this migration again: %s',
                              (select string_agg(format('alter type %s add value %L;', v_name, m.label), ' ')
                               from unnest(v_missing) as m (label)));
            end if;
        elsif (select typcategory from pg_type where oid = v_type) <> 'S' then
            raise exception 'tracked_repositories.priority has the type %, which is neither an enum nor a text type', v_name
                using errcode = 'datatype_mismatch',
                      hint = 'Change it to text or to an enum of high, medium and low, then apply this migration again.';
        end if;
    end
    $$;

    perform priorityd.demand_tables();
    perform priorityd.demand_keys();
    perform priorityd.demand_priority();
end
$tables$;

-- ---------------------------------------------------------------------------------------------------------------
-- Columns
-- ---------------------------------------------------------------------------------------------------------------

do $tables$
declare
    c_table constant regclass := 'public.tracked_repositories';
    v_type oid;
    v_modifier integer;
    v_name text;
    v_unknown text;
    v_column text;
    v_definition text;
begin
    if not priorityd.start_unit('20250103000000 columns', 1) then
        return;
    end if;

    -- Everyone queues behind a session that waits for an exclusive lock: better to fail and be retried. Autovacuum gives
    -- way to a session that has waited for a second.
    perform set_config('lock_timeout', '2s', true);
    select b.type, b.modifier into v_type, v_modifier from priorityd.base_type(c_table, 'priority') b;
    if v_type is not null and not exists (select from priorityd.created c where c.what = 'backfill') then
        execute $$
            select string_agg(distinct quote_literal(left(tr.priority::text, 40)), ', ') from public.tracked_repositories tr
            where tr.priority::text not in ('critical', 'high', 'medium', 'low')
        $$ into v_unknown;
        if v_unknown is not null then
            raise warning 'tracked_repositories.priority holds words that mean nothing to priorityd: %', left(v_unknown, 400)
                using hint = 'The first resync makes such rows high in a workspace and medium outside. To keep a row where'
                    ' it is, make it critical, high, or pin it.';
        end if;
    end if;
    if v_type is null then
        if to_regtype('public.repository_priority') is null then
            create type public.repository_priority as enum ('high', 'medium', 'low');
            insert into priorityd.created values ('type public.repository_priority') on conflict do nothing;
        end if;
        v_type := to_regtype('public.repository_priority');
    end if;
    -- A domain counts as its base type: CASE and COALESCE yield that type, never the domain.
    v_name := format_type(v_type, v_modifier);
    if exists (
        select from pg_attribute
        where attrelid = c_table and attname = 'manual_priority' and not attisdropped and atttypid <> v_type
    ) then
        raise exception 'tracked_repositories.manual_priority exists with another type than priority'
            using errcode = 'datatype_mismatch',
                  hint = format('Change its type to %s or rename it, then apply this migration again.', v_name);
    end if;

    for v_column, v_definition in
        select n.name, n.definition
        from (values
            ('priority', 'public.repository_priority default ''medium'''),
            -- The type of priority, so that the two can be assigned and compared without casts. Validated later: a
            -- constraint added with its column scans the whole table under an exclusive lock.
            ('manual_priority', v_name || ', add constraint tracked_repositories_manual_priority_check'
                ' check (manual_priority::text in (''critical'', ''high'', ''medium'', ''low'')) not valid'),
            ('is_workspace_repo', 'boolean default false'),
            ('workspace_count', 'integer default 0'),
            ('tracking_enabled', 'boolean default true')
        ) as n (name, definition)
        where not exists (
            select from pg_attribute a where a.attrelid = c_table and a.attname = n.name and not a.attisdropped
        )
    loop
        execute format('alter table public.tracked_repositories add column %I %s', v_column, v_definition);
        insert into priorityd.created values ('column ' || v_column);
    end loop;

    -- A comment of the application's own is kept.
    for v_column, v_definition in values
        ('is_workspace_repo',
         'True if this repository is tracked by at least one workspace. Auto-synced every 6 hours.'),
        ('workspace_count',
         'Number of workspaces tracking this repository. Used for priority scoring.'),
        ('manual_priority',
         'Explicit override: the priority while the repository is in no workspace; null means medium.')
    loop
        if (select col_description(attrelid, attnum) from pg_attribute
            where attrelid = c_table and attname = v_column) is null then
            execute format('comment on column public.tracked_repositories.%I is %L', v_column, v_definition);
            insert into priorityd.created values ('comment ' || v_column) on conflict do nothing;
        end if;
    end loop;
end
$tables$;

-- ---------------------------------------------------------------------------------------------------------------
-- Membership, and whether all of it is visible
-- ---------------------------------------------------------------------------------------------------------------

do $tables$
declare
    c_memberships constant regclass := 'public.workspace_repositories';
    c_workspaces constant regclass := to_regclass('public.workspaces');
    v_type oid := (priorityd.base_type(c_memberships, 'workspace_id')).type;
    v_id_type oid := (priorityd.base_type(c_workspaces, 'id')).type;
    v_result constant text := format('TABLE(workspace_id %s, repository_id uuid)', format_type(v_type, null));
    v_function regprocedure;
    v_is_ours boolean;
    v_switched_off text := '';
begin
    if not priorityd.start_unit('20250103000000 membership', 1, '{20250103000000 columns}') then
        return;
    end if;

    -- Whether priorityd.memberships() is as created below. An operator's own may start from the default one, and join
    -- something that repeats pairs.
    create or replace function priorityd.memberships_are_as_installed()
    returns boolean language sql stable as $$
        select btrim(regexp_replace(p.prosrc, '[[:space:]]+', ' ', 'g'))
            = 'select m.workspace_id, m.repository_id from priorityd.default_memberships() m'
        from pg_proc p
        where p.oid = to_regprocedure('priorityd.memberships()')
    $$;

    -- The two return the application's type of workspace_id, so that nothing is cast and both are inlined; one made for
    -- another type is dropped first, an operator's own is not.
    for v_function, v_is_ours in
        select p.oid, p.proname = 'default_memberships' or priorityd.memberships_are_as_installed()
        from pg_proc p
        where p.oid in (to_regprocedure('priorityd.memberships()'), to_regprocedure('priorityd.default_memberships()'))
            and (p.proallargtypes, p.proargnames) is distinct from (
                array[v_type, 'uuid'::regtype], array['workspace_id', 'repository_id']
            )
    loop
        if not v_is_ours then
            raise exception 'priorityd.memberships() returns %, but must return %',
                pg_get_function_result(v_function), v_result
                using errcode = 'invalid_function_definition',
                      hint = 'Drop it, create it so, and apply this migration again.';
        end if;
        execute format('drop function %s', v_function);
    end loop;

    -- What counts by default: pairs whose workspace is not known to be switched off. Where the rows of workspaces are
    -- hidden, everything counts. Ids of types without a common comparison are compared as texts.
    if (priorityd.base_type(c_workspaces, 'is_active')).type = 'boolean'::regtype and v_id_type is not null then
        v_switched_off := format('
            and (exists (select from public.workspaces w where %s and w.is_active is false)) is not true',
            case
                when v_id_type = v_type or exists (
                    select from pg_operator o where o.oprname = '=' and o.oprleft = v_id_type and o.oprright = v_type
                ) then 'w.id = wr.workspace_id'
                else 'w.id::text = wr.workspace_id::text'
            end);
    end if;
    execute format($definition$
        create or replace function priorityd.default_memberships()
        returns %s
        language sql stable as $$
            select wr.workspace_id, wr.repository_id
            from public.workspace_repositories wr
            where wr.workspace_id is not null and wr.repository_id is not null %s
        $$
    $definition$, v_result, v_switched_off);

    -- The one place that defines what counts as a membership. An operator may replace it, before installing or later; it
    -- is never overwritten. A SQL function of this form is inlined: with SET or SECURITY DEFINER, or in PL/pgSQL, a
    -- sweep takes three times as long. Pairs may repeat: callers count distinct workspaces.
    if to_regprocedure('priorityd.memberships()') is null then
        execute format($definition$
            create function priorityd.memberships()
            returns %s
            language sql stable as $$
                select m.workspace_id, m.repository_id from priorityd.default_memberships() m
            $$
        $definition$, v_result);
    end if;
end
$tables$;
