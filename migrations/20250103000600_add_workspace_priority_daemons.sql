-- For the daemons: heartbeats, the lease on timer work, the tables that their change stream needs, and which set of
-- migrations is applied.

do $tables$
declare
    v_owner name;
    v_table record;
    v_statement text;
begin
    if not priorityd.start_unit('20250103000600 tables', 1, '{20250103000200 indexes}') then
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

    -- Whether a table's UPDATEs and DELETEs can name their rows. Where they can't, they fail once the table is published.
    create or replace function priorityd.names_rows(p_table oid)
    returns boolean language sql stable as $$
        select t.relreplident = 'f' or exists (
            select from pg_index i
            where i.indrelid = t.oid and i.indisvalid and i.indimmediate and case t.relreplident
                when 'd' then i.indisprimary when 'i' then i.indisreplident else false
            end
        )
        from pg_class t
        where t.oid = p_table
    $$;

    -- What Realtime can hear of the tables that are followed. Decided by what PostgreSQL publishes, not by lists of names:
    -- a table may be published by itself, with its schema, with all tables, or as its partitions. `listed`: under its own
    -- name, which a subscription demands. `flaws`: what does not come through nevertheless. `identified`: its UPDATEs and
    -- DELETEs can name their rows; publishing a table makes them fail where they can't.
    create or replace function priorityd.followed_tables()
    returns table (name text, partitioned boolean, listed boolean, identified boolean, flaws text[])
    language sql stable as $$
        select n.name, c.relkind = 'p', l.relid is not null,
            not exists (
                select from pg_class t
                where (t.oid = c.oid or t.oid in (select r.relid from pg_partition_tree(c.oid) r)) and t.relkind = 'r'
                    and not priorityd.names_rows(t.oid)
            ),
            case
                when p.oid is null then '{}'
                when l.relid is null then array_remove(array[
                    case when c.relpersistence = 'u' then 'PostgreSQL publishes no unlogged table' end,
                    case when c.relkind = 'p' and not p.pubviaroot then 'its changes come under the names of its partitions'
                        ' (publish_via_partition_root is off)' end,
                    (
                        select format('its changes come under the name of %s, of which it is a partition', t.relid::regclass)
                        from pg_get_publication_tables(p.pubname) t
                        where t.relid in (select r.relid from pg_partition_ancestors(c.oid) r)
                        limit 1
                    )
                ], null)
                else array_remove(array[
                    nullif(concat_ws(', ',
                        case when not p.pubinsert then 'inserts' end,
                        case when not p.pubupdate then 'updates' end,
                        case when not p.pubdelete then 'deletes' end
                    ), '') || ' are not published',
                    case when l.qual is not null then 'a row filter leaves rows out' end,
                    'a column list leaves out ' || (
                        select string_agg(a.attname, ', ' order by a.attnum) from pg_attribute a
                        where a.attrelid = c.oid and a.attname = any (n.keys) and a.attnum <> all (l.attrs::smallint[])
                    )
                ], null)
            end
        from (values
            ('tracked_repositories', '{id,repository_id}'::name[]),
            ('workspace_priority_heartbeats', '{daemon_id,beat_at}'),
            ('workspace_repositories', '{id,repository_id}')
        ) n (name, keys)
        join pg_class c on c.oid = to_regclass('public.' || n.name)
        left join pg_publication p on p.pubname = 'supabase_realtime'
        left join lateral (
            select t.relid, t.attrs, t.qual
            from pg_publication q cross join lateral pg_get_publication_tables(q.pubname) t
            where q.oid = p.oid and t.relid = c.oid
        ) l on true
    $$;

    select pg_get_userbyid(p.pubowner) into v_owner from pg_publication p where p.pubname = 'supabase_realtime';
    if v_owner is null then
        raise notice 'the publication supabase_realtime does not exist: changes will be found by sweeps only';
        return;
    end if;
    -- After a large backfill autovacuum is running, and gives way to a session that has waited for a second.
    perform set_config('lock_timeout', '2s', true);
    for v_table in
        select f.* from priorityd.followed_tables() f where not f.listed or f.flaws <> '{}' order by f.name
    loop
        v_statement := format('alter publication supabase_realtime add table public.%I', v_table.name);
        if v_table.flaws <> '{}' then
            raise warning 'supabase_realtime does not publish all of %: %', v_table.name, array_to_string(v_table.flaws, '; ')
                using hint = 'What does not come through will be found by sweeps only.';
        elsif not v_table.identified then
            -- The application's writes matter more than hearing of them at once.
            raise warning '% has no primary key and no replica identity, so it was not added to supabase_realtime',
                v_table.name
                using hint = 'Its changes will be found by sweeps only. Give it a primary key and apply this migration again.';
        else
            begin
                execute v_statement;
                insert into priorityd.created values ('published public.' || v_table.name) on conflict do nothing;
            exception
                when insufficient_privilege then
                    raise warning '% was not added to supabase_realtime, which belongs to %', v_table.name, v_owner
                        using detail = sqlerrm, hint = format(
                            'Its changes will be found by sweeps only, until %s does this: %s', v_owner, v_statement);
            end;
        end if;
    end loop;
end
$tables$;

do $functions$
begin
    if not priorityd.start_unit(
        '20250103000600 functions', 1, '{20250103000500 functions, 20250103000600 tables}', array[
            'beat_workspace_priorities', 'hold_workspace_priority_lease', 'release_workspace_priority_lease',
            'workspace_priority_schema_version'
        ]
    ) then
        return;
    end if;

    -- A sign of life that comes back through the change stream. Rows of daemons that are gone are deleted, as are rows
    -- that were written while the clock was wrong.
    create or replace function public.beat_workspace_priorities(p_daemon_id uuid)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '5s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_beat_at timestamptz := clock_timestamp();
    begin
        perform priorityd.check_daemon(p_daemon_id);
        insert into public.workspace_priority_heartbeats (daemon_id, beat_at)
        values (p_daemon_id, v_beat_at)
        on conflict (daemon_id) do update set beat_at = excluded.beat_at;

        -- Two daemons may delete at the same time: neither waits for the other.
        delete from public.workspace_priority_heartbeats h
        where h.daemon_id in (
            select old.daemon_id from public.workspace_priority_heartbeats old
            where abs(extract(epoch from old.beat_at - v_beat_at)) > 86400
            for update skip locked
        );
        return jsonb_build_object('beat_at', v_beat_at);
    end
    $$;

    -- Takes the lease for p_daemon_id if it is free or has expired, and renews it for its holder.
    -- `held` is whether p_daemon_id has it now, `expires_in_seconds` how long its holder may keep it without
    -- asking again. Durations only, so that the clocks of daemon and database need not agree; and a lease that would last
    -- longer than any can be asked for was given while the database's clock was wrong, and does not count. Either way the
    -- daemon's heartbeat row is written, which saves a call.
    create or replace function public.hold_workspace_priority_lease(p_daemon_id uuid, p_seconds double precision)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '4s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        c_longest constant double precision := 3600;
        v_answer jsonb;
    begin
        perform public.beat_workspace_priorities(p_daemon_id);
        -- Negated, so that null and NaN (which is greater than any number) do not pass.
        if (p_seconds > 0 and p_seconds <= c_longest) is not true then
            raise exception 'p_seconds is %, but must be above 0 and at most %', coalesce(p_seconds::text, 'null'), c_longest
                using errcode = 'invalid_parameter_value';
        end if;

        insert into priorityd.leases as l (name, daemon_id, expires_at)
        values ('timer', p_daemon_id, clock_timestamp() + make_interval(secs => p_seconds))
        on conflict (name) do update set daemon_id = excluded.daemon_id, expires_at = excluded.expires_at
        -- The time after the row was locked: the session that held the lock may have renewed the lease.
        where l.daemon_id = excluded.daemon_id
            or l.expires_at not between clock_timestamp() and clock_timestamp() + make_interval(secs => c_longest);

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

    -- Gives up the lease, so that the next daemon to ask gets it. Does nothing if another daemon has it.
    create or replace function public.release_workspace_priority_lease(p_daemon_id uuid)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '4s'
    set default_transaction_isolation = 'read committed'
    as $$
    begin
        perform priorityd.check_daemon(p_daemon_id);
        delete from priorityd.leases l where l.daemon_id = p_daemon_id;
        return jsonb_build_object('released', found);
    end
    $$;

    -- Which set of these migrations is applied: `set` is the number to which all units have come, `works_from` the set
    -- from which on daemons can work with it, `units` what is applied.
    create or replace function public.workspace_priority_schema_version()
    returns jsonb language sql stable
    set search_path = public, extensions
    set default_transaction_isolation = 'read committed'
    as $$
        select jsonb_build_object(
            'set', min(m.set_number),
            'works_from', 1,
            'units', jsonb_agg(m.unit order by m.unit)
        )
        from priorityd.migrations m
    $$;

    perform priorityd.grant_access();
end
$functions$;
