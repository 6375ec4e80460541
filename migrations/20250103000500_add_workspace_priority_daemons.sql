-- For the daemons: heartbeats, the lease on timer work, the tables that their change stream needs, and what each finds
-- out about the database when it starts.

do $tables$
declare
    v_table text;
begin
    if not priorityd.start_unit('20250103000500 tables', 1, '{20250103000100 indexes}') then
        return;
    end if;

    -- The daemon writes its row and expects to see that write come back through the change stream: the only
    -- proof that the stream still delivers, since a socket can stay healthy while changes no longer come.
    if to_regclass('public.workspace_priority_heartbeats') is null then
        create table public.workspace_priority_heartbeats (
            daemon_id uuid primary key,
            beat_at timestamptz not null
        );
        alter table public.workspace_priority_heartbeats enable row level security;
        comment on table public.workspace_priority_heartbeats is
        'One row for each running daemon, updated regularly and watched through the change stream.';
        insert into priorityd.created values ('table public.workspace_priority_heartbeats');
    end if;

    -- One row: the lease on everything that daemons do by timer. It is there to save work, not to protect anything:
    -- whatever is done under it is computed from the rows as they are, so two who believe that they have it do no harm.
    if to_regclass('priorityd.leases') is null then
        create table priorityd.leases (
            name text primary key constraint leases_name_check check (name = 'timer'),
            daemon_id uuid not null,
            expires_at timestamptz not null
        );
    end if;

    if not exists (select from pg_publication where pubname = 'supabase_realtime') then
        raise notice 'the publication supabase_realtime does not exist: changes will be found by sweeps only';
        return;
    end if;
    -- After a large first fill autovacuum is at work, and gives way to whoever has waited for a second.
    perform set_config('lock_timeout', '2s', true);
    foreach v_table in array array[
        'public.workspace_repositories', 'public.tracked_repositories', 'public.workspace_priority_heartbeats'
    ] loop
        -- Lists what FOR ALL TABLES and FOR TABLES IN SCHEMA bring in, too.
        if exists (
            select from pg_publication_tables p
            where p.pubname = 'supabase_realtime' and format('%I.%I', p.schemaname, p.tablename) = v_table
        ) then
            continue;
        end if;
        -- Publishing a table that has no replica identity makes its UPDATEs and DELETEs fail. The
        -- application's writes matter more than hearing of them at once.
        if exists (
            select from pg_class c
            where c.oid = v_table::regclass and (
                c.relreplident = 'n'
                or (c.relreplident = 'd' and not exists (
                    select from pg_index i where i.indrelid = c.oid and i.indisprimary
                ))
            )
        ) then
            raise warning '% has no primary key and no replica identity, so it was not added to supabase_realtime', v_table
                using hint = 'Its changes will be found by sweeps only. Give it a primary key and apply this migration again.';
            continue;
        end if;
        execute format('alter publication supabase_realtime add table %s', v_table);
        insert into priorityd.created values ('published ' || v_table) on conflict do nothing;
    end loop;
end
$tables$;

do $functions$
begin
    if not priorityd.start_unit(
        '20250103000500 functions', 1, '{20250103000400 functions, 20250103000500 tables}', array[
            'beat_workspace_priorities', 'hold_workspace_priority_lease', 'release_workspace_priority_lease',
            'workspace_priority_schema_version', 'check_workspace_priorities'
        ]
    ) then
        return;
    end if;

    -- A sign of life that comes back through the change stream. Rows of daemons that are gone are cleared away.
    create or replace function public.beat_workspace_priorities(p_daemon_id uuid)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '5s'
    as $$
    declare
        v_beat_at timestamptz := clock_timestamp();
    begin
        perform priorityd.check_daemon(p_daemon_id);
        insert into public.workspace_priority_heartbeats (daemon_id, beat_at)
        values (p_daemon_id, v_beat_at)
        on conflict (daemon_id) do update set beat_at = excluded.beat_at;

        -- Two daemons may clear at the same time: neither waits for the other.
        delete from public.workspace_priority_heartbeats h
        where h.daemon_id in (
            select old.daemon_id from public.workspace_priority_heartbeats old
            where old.beat_at < v_beat_at - interval '1 day'
            for update skip locked
        );
        return jsonb_build_object('beat_at', v_beat_at);
    end
    $$;

    -- Takes the lease for p_daemon_id if nobody has it or it has expired, and prolongs it for who has it.
    -- `held` is whether p_daemon_id has it now, `expires_in_seconds` how long whoever has it may keep it without
    -- asking again. Durations only, so that the clocks of daemon and database need not agree.
    create or replace function public.hold_workspace_priority_lease(p_daemon_id uuid, p_seconds double precision)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '4s'
    as $$
    declare
        c_longest constant double precision := 3600;
        v_answer jsonb;
    begin
        perform priorityd.check_daemon(p_daemon_id);
        -- The negation lets null and NaN (which is greater than any number) not pass.
        if (p_seconds > 0 and p_seconds <= c_longest) is not true then
            raise exception 'p_seconds is %, but must be above 0 and at most %', coalesce(p_seconds::text, 'null'), c_longest
                using errcode = 'invalid_parameter_value';
        end if;

        insert into priorityd.leases as l (name, daemon_id, expires_at)
        values ('timer', p_daemon_id, clock_timestamp() + make_interval(secs => p_seconds))
        on conflict (name) do update set daemon_id = excluded.daemon_id, expires_at = excluded.expires_at
        -- The time after the row was locked: whoever was waited for may have prolonged the lease.
        where l.daemon_id = excluded.daemon_id or l.expires_at <= clock_timestamp();

        select jsonb_build_object(
                'held', l.daemon_id = p_daemon_id,
                'expires_in_seconds', greatest(0, extract(epoch from l.expires_at - clock_timestamp()))
            )
        into v_answer
        from priorityd.leases l
        where l.name = 'timer';
        -- Given up by another daemon between the two statements: there is nothing to wait for.
        return coalesce(v_answer, jsonb_build_object('held', false, 'expires_in_seconds', 0));
    end
    $$;

    -- Gives the lease up, so that the next who asks has it. Does nothing if another daemon has it.
    create or replace function public.release_workspace_priority_lease(p_daemon_id uuid)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '4s'
    as $$
    begin
        delete from priorityd.leases l where l.daemon_id = p_daemon_id;
        return jsonb_build_object('released', found);
    end
    $$;

    -- Which set of these migrations is applied: `set` is the number to which all units have come, `works_from` the set
    -- from which on daemons can work with it, `units` what is applied.
    create or replace function public.workspace_priority_schema_version()
    returns jsonb language sql stable
    set search_path = public, extensions
    as $$
        select jsonb_build_object(
            'set', min(m.set_number),
            'works_from', 1,
            'units', jsonb_agg(m.unit order by m.unit)
        )
        from priorityd.migrations m
    $$;

    -- Whether priorityd.memberships() is the operator's own, whether the planner sees through it, and what it costs in
    -- milliseconds, for one repository and in full.
    create or replace function priorityd.check_memberships()
    returns jsonb language plpgsql as $$
    declare
        v_plan json;
        v_began timestamptz;
        v_repository_id uuid;
        v_one double precision;
        v_memberships bigint;
    begin
        execute 'explain (format json) select * from priorityd.memberships()' into v_plan;
        select m.repository_id into v_repository_id from priorityd.memberships() m limit 1;
        v_began := clock_timestamp();
        perform from priorityd.memberships() m where m.repository_id = v_repository_id;
        v_one := extract(epoch from clock_timestamp() - v_began) * 1000;
        v_began := clock_timestamp();
        select count(*) into v_memberships from priorityd.memberships();
        return jsonb_build_object(
            'own', not priorityd.memberships_are_as_installed(),
            'inlined', v_plan::text not like '%"Function Name": "memberships"%',
            'memberships', v_memberships,
            'one_ms', round(v_one::numeric, 3),
            'all_ms', round((extract(epoch from clock_timestamp() - v_began) * 1000)::numeric, 3)
        );
    end
    $$;

    -- How much a DELETE of a membership tells through the change stream.
    create or replace function priorityd.check_membership_table()
    returns jsonb language sql stable as $$
        select jsonb_build_object(
            'exists', true,
            'row_level_security', t.secured,
            'replica_identity', t.identity,
            'primary_key', to_jsonb(t.primary_key),
            -- With row level security on, a DELETE carries the columns of the primary key only, whatever the replica
            -- identity is.
            'delete_names_repository', case t.identity
                when 'nothing' then false
                when 'full' then not t.secured or 'repository_id' = any (t.primary_key)
                when 'index' then 'repository_id' = any (t.identity_columns)
                    and (not t.secured or 'repository_id' = any (t.primary_key))
                else 'repository_id' = any (t.primary_key)
            end
        )
        from (
            select c.relrowsecurity as secured,
                case c.relreplident
                    when 'd' then 'default' when 'f' then 'full' when 'n' then 'nothing' when 'i' then 'index'
                end as identity,
                coalesce(array_agg(a.attname::text order by k.position) filter (where i.indisprimary), '{}') as primary_key,
                coalesce(array_agg(a.attname::text) filter (where i.indisreplident), '{}') as identity_columns
            from pg_class c
            left join pg_index i on i.indrelid = c.oid
            left join lateral unnest(i.indkey::smallint[]) with ordinality k (attnum, position) on k.position <= i.indnkeyatts
            left join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
            where c.oid = 'public.workspace_repositories'::regclass
            group by c.relrowsecurity, c.relreplident
        ) t
    $$;

    -- What the database looks like to the daemon: for `priorityd check`, and to choose how to follow changes.
    create or replace function public.check_workspace_priorities()
    returns jsonb language plpgsql
    set search_path = public, extensions
    set statement_timeout = '10s'
    as $$
    declare
        c_published constant text[] := array[
            'workspace_repositories', 'tracked_repositories', 'workspace_priority_heartbeats'
        ];
        v_published constant text[] := array(
            select p.tablename::text from pg_publication_tables p
            where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = any (c_published)
            order by p.tablename
        );
    begin
        return jsonb_build_object(
            'role', current_user,
            'server_version', current_setting('server_version'),
            'schema_version', public.workspace_priority_schema_version(),
            'publication', jsonb_build_object(
                'exists', exists (select from pg_publication where pubname = 'supabase_realtime'),
                'tables', to_jsonb(v_published),
                'missing', (
                    select coalesce(jsonb_agg(t.name order by t.name), '[]')
                    from unnest(c_published) t (name)
                    where t.name <> all (v_published)
                )
            ),
            'hidden', to_jsonb(priorityd.hidden_tables()),
            'memberships', priorityd.check_memberships(),
            'missing_indexes', (
                select coalesce(jsonb_agg(n.name order by n.name), '[]') from priorityd.missing_indexes() n
                where to_regclass('public.' || n.table_name) is not null
            ),
            'workspace_repositories', priorityd.check_membership_table(),
            'background_jobs', to_regclass('public.background_jobs') is not null
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
