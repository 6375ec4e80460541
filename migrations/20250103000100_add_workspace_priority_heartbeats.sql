-- The daemon's heartbeat, and the tables that its change stream needs.
-- Safe to apply again.

insert into public.workspace_priority_migrations (version, name)
values ('20250103000100', '20250103000100_add_workspace_priority_heartbeats.sql')
on conflict (version) do nothing;

-- The daemon writes its row and expects to see that write come back through the change stream: the only
-- proof that the stream still delivers, since a socket can stay healthy while changes no longer come.
create table if not exists public.workspace_priority_heartbeats (
    daemon_id uuid primary key,
    beat_at timestamptz not null
);
alter table public.workspace_priority_heartbeats enable row level security;
comment on table public.workspace_priority_heartbeats is
'One row for each running daemon, updated regularly and watched through the change stream.';

do $$
declare
    v_role text;
begin
    revoke all on public.workspace_priority_heartbeats from public;
    for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated', 'service_role') loop
        execute format('revoke all on public.workspace_priority_heartbeats from %I', v_role);
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
        grant select, insert, update, delete on public.workspace_priority_heartbeats to service_role;
    end if;
end
$$;

do $$
declare
    v_table text;
begin
    perform set_config('lock_timeout', '15s', true);
    if not exists (select from pg_publication where pubname = 'supabase_realtime') then
        raise notice 'the publication supabase_realtime does not exist: changes will be found by sweeps only';
        return;
    end if;
    foreach v_table in array array[
        'public.workspace_repositories', 'public.tracked_repositories', 'public.workspace_priority_heartbeats'
    ] loop
        -- Lists what FOR ALL TABLES and FOR TABLES IN SCHEMA bring in, too.
        if exists (
            select from pg_publication_tables p
            where p.pubname = 'supabase_realtime'
                and format('%I.%I', p.schemaname, p.tablename) = v_table
        ) then
            continue;
        end if;
        -- Publishing a table that has no replica identity makes its UPDATEs and DELETEs fail. The
        -- application's writes matter more than hearing of them at once.
        if exists (
            select from pg_class c
            where c.oid = v_table::regclass
                and (
                    c.relreplident = 'n'
                    or (
                        c.relreplident = 'd'
                        and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
                    )
                )
        ) then
            raise warning '% has no primary key and no replica identity, so it was not added to supabase_realtime', v_table
                using hint = 'Its changes will be found by sweeps only. Give it a primary key and apply this migration again.';
            continue;
        end if;
        execute format('alter publication supabase_realtime add table %s', v_table);
        update public.workspace_priority_migrations
        set created = created || ('published ' || v_table) where version = '20250103000100';
    end loop;
end
$$;
