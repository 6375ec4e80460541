-- Workspace priority tracking: what tracked_repositories knows about workspaces, what counts as a membership, the
-- trail of every change, and the first fill of all that.
--
-- How these files work. They are a set with a number; a file consists of units. A unit is one DO block, so that it is
-- atomic under every client, and begins by asking start_unit: a unit older than what is installed is skipped with a
-- notice, one whose predecessors are missing is refused. Applied again, in order, the set brings every earlier state
-- to its own. Tables, columns and indexes are units apart from functions, which change together. Outbox, ordered jobs
-- and job telemetry are lines of their own, each of which may be left out.
--
-- The application's schema is taken as it is found. `priority` may be an enum of any name in any schema, a text type, or
-- missing; the columns may be there already, with nulls in them. What is created in the application's own objects is
-- written down in priorityd.created, so that rollback/uninstall.sql removes that and nothing else.
--
-- Adding columns locks tracked_repositories against everybody until the end of the transaction: seconds on a million
-- rows. Where that is too long, run the script in concurrently/ before: it has this file add the columns and stop, by
-- setting priorityd.part to 'columns', and does the rest without making anybody wait.

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
    -- Two who apply the set at once wait for each other.
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
        -- What was created in the application's own objects: 'column manual_priority', 'index …', 'published …'.
        create table priorityd.created (what text primary key);
    end if;

    -- Whether to go on with a unit of this set, which needs those other units of it. A function of the application's
    -- own is not replaced.
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
    v_missing text[];
    v_column text;
    v_definition text;
begin
    if not priorityd.start_unit('20250103000000 columns', 1) then
        return;
    end if;

    -- Whoever waits for the strongest lock makes everybody wait behind it: better to fail, and be tried again. Autovacuum
    -- gives way to whoever has waited for a second.
    perform set_config('lock_timeout', '2s', true);
    select a.atttypid, a.atttypmod into v_type, v_modifier from pg_attribute a
    where a.attrelid = c_table and a.attname = 'priority' and not a.attisdropped;
    if v_type is null then
        if to_regtype('public.repository_priority') is null then
            create type public.repository_priority as enum ('high', 'medium', 'low');
            insert into priorityd.created values ('type public.repository_priority') on conflict do nothing;
        end if;
        v_type := to_regtype('public.repository_priority');
    end if;
    -- A domain counts as the type beneath it: CASE and COALESCE yield that type, never the domain.
    while exists (select from pg_type t where t.oid = v_type and t.typtype = 'd') loop
        select t.typbasetype, t.typtypmod into v_type, v_modifier from pg_type t where t.oid = v_type;
    end loop;
    v_name := format_type(v_type, v_modifier);
    if (select typtype from pg_type where oid = v_type) = 'e' then
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
            -- The type of priority, so that the two can be assigned and compared without casts. Checked later: a
            -- constraint that comes with its column reads the whole table under the strongest lock.
            ('manual_priority', v_name || ', add constraint tracked_repositories_manual_priority_check'
                ' check (manual_priority in (''high'', ''medium'', ''low'')) not valid'),
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

    -- A comment that the application wrote itself is left alone.
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
-- Membership, and who sees all of it
-- ---------------------------------------------------------------------------------------------------------------

do $tables$
declare
    c_as_created constant text := 'TABLE(workspace_id uuid, repository_id uuid)';
    v_switched_off text := '';
begin
    if not priorityd.start_unit('20250103000000 membership', 1, '{20250103000000 columns}') then
        return;
    end if;

    -- What counts unless an operator says otherwise: pairs whose workspace is not known to be switched off. Where the
    -- rows of workspaces are hidden, everything counts.
    if exists (
        select from pg_attribute i
        join pg_attribute a on a.attrelid = i.attrelid and a.attname = 'is_active' and a.atttypid = 'boolean'::regtype
        where i.attrelid = to_regclass('public.workspaces') and i.attname = 'id' and i.atttypid = 'uuid'::regtype
            and not a.attisdropped
    ) then
        v_switched_off := '
            and (exists (select from public.workspaces w where w.id = wr.workspace_id and w.is_active is false)) is not true';
    end if;
    execute format($definition$
        create or replace function priorityd.default_memberships()
        returns table (workspace_id uuid, repository_id uuid)
        language sql stable as $$
            select wr.workspace_id, wr.repository_id
            from public.workspace_repositories wr
            where wr.workspace_id is not null and wr.repository_id is not null %s
        $$
    $definition$, v_switched_off);

    -- The one place that says what counts as a membership. An operator may replace it, before installing or later; it
    -- is never overwritten. A SQL function of this form is inlined: with SET or SECURITY DEFINER, or in PL/pgSQL, a
    -- sweep takes three times as long. Pairs may repeat: whoever counts, counts distinct workspaces.
    if to_regprocedure('priorityd.memberships()') is null then
        create function priorityd.memberships()
        returns table (workspace_id uuid, repository_id uuid)
        language sql stable as $$
            select m.workspace_id, m.repository_id from priorityd.default_memberships() m
        $$;
    elsif pg_get_function_result('priorityd.memberships()'::regprocedure) <> c_as_created then
        raise exception 'priorityd.memberships() returns %, but must return %',
            pg_get_function_result('priorityd.memberships()'::regprocedure), c_as_created
            using errcode = 'invalid_function_definition', hint = 'Drop it, create it so, and apply this migration again.';
    end if;

    -- Whether it is as it was created. An operator's own may well begin with the default one, and join what repeats pairs.
    create or replace function priorityd.memberships_are_as_installed()
    returns boolean language sql stable as $$
        select btrim(regexp_replace(p.prosrc, '\s+', ' ', 'g'))
            = 'select m.workspace_id, m.repository_id from priorityd.default_memberships() m'
        from pg_proc p
        where p.oid = 'priorityd.memberships()'::regprocedure
    $$;
end
$tables$;

-- ---------------------------------------------------------------------------------------------------------------
-- Audit trail and first fill
-- ---------------------------------------------------------------------------------------------------------------

do $tables$
begin
    if not priorityd.start_unit('20250103000000 backfill', 1, '{20250103000000 membership}') then
        return;
    end if;

    -- What may cause a change.
    create or replace function priorityd.triggers()
    returns text[] language sql immutable as $$
        select array['event', 'sweep', 'resync', 'start', 'reconnect', 'signal', 'overflow', 'manual', 'pin',
            'migration', 'rollback']
    $$;

    -- One row for each change of a priority or of the flag, written in the transaction that makes the change: the trail
    -- can neither miss a change nor tell of one that was rolled back. Being read by the dispatcher makes the same row
    -- the outbox. No foreign keys: the trail outlives the repository, and the application's deletes must not pay for it.
    if to_regclass('public.repository_priority_changes') is null then
        create table public.repository_priority_changes (
            id bigint generated always as identity primary key,
            tracked_repository_id uuid not null,
            repository_id uuid,
            old_priority text,
            new_priority text not null,
            old_is_workspace_repo boolean,
            is_workspace_repo boolean not null,
            workspace_count integer not null,
            trigger text not null constraint repository_priority_changes_trigger_check
                check (trigger = any (priorityd.triggers())),
            changed_at timestamptz not null default clock_timestamp(),
            -- Dispatching. A row is pending until it has been dispatched or given up; a claim that is never finished
            -- (its holder died) runs out and is taken over.
            daemon_id uuid,
            claimed_at timestamptz,
            attempts integer not null default 0,
            next_attempt_at timestamptz not null default clock_timestamp(),
            last_error text,
            dispatched_at timestamptz,
            abandoned_at timestamptz
        );
        alter table public.repository_priority_changes enable row level security;
        -- The pending rows only, oldest first: as small as the backlog, however long the trail grows.
        create index idx_repository_priority_changes_pending
        on public.repository_priority_changes (id) where dispatched_at is null and abandoned_at is null;
        -- The last changes of one repository.
        create index idx_repository_priority_changes_repository
        on public.repository_priority_changes (repository_id, id);
        comment on table public.repository_priority_changes is
        'Audit trail of priority changes and outbox of their announcements: one row for each change of priority or flag.';
        insert into priorityd.created values ('table public.repository_priority_changes');
    end if;

    -- Whether 'high' was set by somebody and is to be remembered. Without the flag it was, but not where the
    -- repository is held by any workspace, or a count is left: then flags were taken back, and nobody chose anything.
    create or replace function priorityd.is_override(
        p_priority text, p_flag boolean, p_count integer, p_manual text, p_repository_id uuid
    )
    returns boolean language plpgsql stable as $$
    begin
        if (p_priority = 'high' and p_flag is not true and coalesce(p_count, 0) = 0 and p_manual is null) is not true then
            return false;
        end if;
        return not exists (select from public.workspace_repositories wr where wr.repository_id = p_repository_id);
    end
    $$;

    -- The first fill, of these tracked rows or of all. Repositories in a workspace get their flag, count and priority;
    -- of the others, overrides are remembered and unknown flags become known: the rest is left to the first resync.
    -- Nobody kept flags before, so 'high' in a workspace says nothing about an override.
    -- Recorded as dispatched: the change is on record, but nobody waits for announcements of the first fill.
    create or replace function priorityd.backfill(p_ids uuid[] default null)
    returns void language plpgsql
    set plan_cache_mode = force_custom_plan
    as $$
    declare
        v_repository_ids uuid[] := array(select tr.repository_id from public.tracked_repositories tr where tr.id = any (p_ids));
    begin
        if row_security_active('public.tracked_repositories') or row_security_active('public.workspace_repositories') then
            raise exception 'row level security may hide rows from %, who applies this migration', current_user
                using errcode = 'insufficient_privilege', hint = 'Apply it as a role with BYPASSRLS.';
        end if;
        with counted as (
            select m.repository_id, count(distinct m.workspace_id)::integer as workspaces
            from priorityd.memberships() m
            where p_ids is null or m.repository_id = any (v_repository_ids)
            group by m.repository_id
        ),
        found as (
            select tr.id, tr.priority, tr.is_workspace_repo, coalesce(c.workspaces, 0) as workspaces,
                c.workspaces is null and priorityd.is_override(
                    tr.priority::text, tr.is_workspace_repo, tr.workspace_count, tr.manual_priority::text, tr.repository_id
                ) as adopt
            from public.tracked_repositories tr
            left join counted c on c.repository_id = tr.repository_id
            where (p_ids is null or tr.id = any (p_ids)) and (
                tr.is_workspace_repo is null or tr.workspace_count is null
                or (c.workspaces > 0 and (
                    not tr.is_workspace_repo or tr.workspace_count <> c.workspaces or tr.priority is distinct from 'high'
                ))
                or (tr.priority = 'high' and c.workspaces is null and tr.manual_priority is null)
            )
            order by tr.id
            -- A row that the application holds is left to the next time.
            for no key update of tr skip locked
        ),
        written as (
            update public.tracked_repositories tr
            set is_workspace_repo = f.workspaces > 0 or coalesce(tr.is_workspace_repo, false),
                workspace_count = case when f.workspaces > 0 then f.workspaces else coalesce(tr.workspace_count, 0) end,
                priority = case when f.workspaces > 0 then 'high' else tr.priority end,
                manual_priority = case when f.adopt then 'high' else tr.manual_priority end
            from found f
            where tr.id = f.id and (
                f.workspaces > 0 or f.adopt or tr.is_workspace_repo is null or tr.workspace_count is null
            )
            returning tr.id, tr.repository_id
        )
        insert into public.repository_priority_changes (
            tracked_repository_id, repository_id, old_priority, new_priority,
            old_is_workspace_repo, is_workspace_repo, workspace_count, trigger, dispatched_at
        )
        select w.id, w.repository_id, f.priority::text, 'high', f.is_workspace_repo, true, f.workspaces, 'migration',
            clock_timestamp()
        from written w join found f using (id)
        where f.workspaces > 0 and (f.priority is distinct from 'high' or f.is_workspace_repo is not true)
        order by w.id;
    end
    $$;

    if current_setting('priorityd.part', true) = 'columns' then
        return;
    end if;
    -- Ever after, what a change means is for the daemon to decide.
    if not exists (select from priorityd.created c where c.what = 'backfill') then
        perform priorityd.backfill();
        insert into priorityd.created values ('backfill');
    end if;
    if exists (
        select from pg_constraint
        where conrelid = 'public.tracked_repositories'::regclass
            and conname = 'tracked_repositories_manual_priority_check' and not convalidated
    ) then
        alter table public.tracked_repositories validate constraint tracked_repositories_manual_priority_check;
    end if;
end
$tables$;
