-- For several daemons at once: which of them does the timer work, and how they stay out of each other's way.
-- Safe to apply again.

insert into public.workspace_priority_migrations (version, name)
values ('20250103000400', '20250103000400_add_workspace_priority_leases.sql')
on conflict (version) do nothing;

-- One row: the lease on everything that daemons do by timer. It is there to save work, not to protect anything:
-- whatever is done under it is computed from the rows as they are, so two who believe that they have it do no harm.
create table if not exists public.workspace_priority_leases (
    name text primary key constraint workspace_priority_leases_name_check check (name = 'timer'),
    daemon_id uuid not null,
    expires_at timestamptz not null
);
alter table public.workspace_priority_leases enable row level security;
comment on table public.workspace_priority_leases is
'The daemon that sweeps, resyncs and cleans up by timer, and until when it may before it has to ask again.';

-- Takes the lease for p_daemon_id if nobody has it or it has expired, and prolongs it for who has it.
-- `held` is whether p_daemon_id has it now, `expires_in_seconds` how long whoever has it may keep it without
-- asking again. Durations only, so that the clocks of daemon and database need not agree.
create or replace function public.hold_workspace_priority_lease(p_daemon_id uuid, p_seconds double precision)
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '1s'
set statement_timeout = '4s'
as $$
declare
    c_longest constant double precision := 3600;
    v_answer jsonb;
begin
    if p_daemon_id is null then
        raise exception 'p_daemon_id is null, but must be the id of a daemon'
            using errcode = 'invalid_parameter_value';
    end if;
    -- The negation lets null and NaN (which is greater than any number) not pass.
    if (p_seconds > 0 and p_seconds <= c_longest) is not true then
        raise exception 'p_seconds is %, but must be above 0 and at most %', coalesce(p_seconds::text, 'null'), c_longest
            using errcode = 'invalid_parameter_value';
    end if;

    insert into public.workspace_priority_leases as l (name, daemon_id, expires_at)
    values ('timer', p_daemon_id, clock_timestamp() + make_interval(secs => p_seconds))
    on conflict (name) do update set daemon_id = excluded.daemon_id, expires_at = excluded.expires_at
    -- The time after the row was locked: whoever was waited for may have prolonged the lease.
    where l.daemon_id = excluded.daemon_id or l.expires_at <= clock_timestamp();

    select jsonb_build_object(
            'held', l.daemon_id = p_daemon_id,
            'expires_in_seconds', greatest(0, extract(epoch from l.expires_at - clock_timestamp()))
        )
    into v_answer
    from public.workspace_priority_leases l
    where l.name = 'timer';
    -- Given up by another daemon between the two statements: there is nothing to wait for.
    return coalesce(v_answer, jsonb_build_object('held', false, 'expires_in_seconds', 0));
end
$$;

-- Gives the lease up, so that the next who asks has it. Does nothing if another daemon has it.
create or replace function public.release_workspace_priority_lease(p_daemon_id uuid)
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '1s'
set statement_timeout = '4s'
as $$
declare
    v_released boolean;
begin
    delete from public.workspace_priority_leases l where l.daemon_id = p_daemon_id;
    v_released := found;
    return jsonb_build_object('released', v_released);
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Rows that somebody holds
-- ---------------------------------------------------------------------------------------------------------

-- Locks these rows in key order and returns those that it got. A call for a single row waits for it, unless
-- p_skip_locked; a call for several takes those that nobody else holds. Waiting for one of them, it would hold the
-- others meanwhile, and of two daemons that hear of the same changes each would find its rows held by the other: with
-- one row locked for long, hardly any was free. Rows that are not had are reported, and the caller comes back.
create or replace function public.lock_tracked_repositories(p_ids uuid[], p_skip_locked boolean)
returns uuid[]
language plpgsql
set search_path = ''
as $$
begin
    if p_skip_locked or cardinality(p_ids) > 1 then
        return array(
            select tr.id from public.tracked_repositories tr
            where tr.id = any (p_ids)
            order by tr.id
            for no key update skip locked
        );
    end if;
    return array(
        select tr.id from public.tracked_repositories tr
        where tr.id = any (p_ids)
        for no key update
    );
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Privileges: service_role only
-- ---------------------------------------------------------------------------------------------------------

do $$
declare
    v_function regprocedure;
    v_role text;
begin
    revoke all on public.workspace_priority_leases from public;
    for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated', 'service_role') loop
        execute format('revoke all on public.workspace_priority_leases from %I', v_role);
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
        grant select, insert, update, delete on public.workspace_priority_leases to service_role;
    end if;
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace
            and p.proname in ('hold_workspace_priority_lease', 'release_workspace_priority_lease')
    loop
        execute format('revoke all on function %s from public', v_function);
        for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
            execute format('revoke all on function %s from %I', v_function, v_role);
        end loop;
        if exists (select from pg_roles where rolname = 'service_role') then
            execute format('grant execute on function %s to service_role', v_function);
        end if;
    end loop;
end
$$;

-- PostgREST serves new functions only after it has been told to read the schema again.
notify pgrst, 'reload schema';
