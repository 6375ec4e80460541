-- Undoes 20250103000800_add_workspace_priority_fast_paths.sql. Stop the daemon before: a resync under way would go on
-- in another order.

-- All three functions as 20250103000200 has them; where they are gone already they stay away.
do $do$
begin
    if to_regprocedure('public.lock_and_write_workspace_priorities(uuid[], text, boolean, boolean, text)') is null then
        return;
    end if;
    execute $restore$
drop function if exists public.decide_workspace_priorities(uuid[], boolean, text);

-- What each of these tracked rows is and what it should be. The rules are here and nowhere else, but for the
-- first fill (the migration's) and the rollback, which by intention look at less.
-- With p_pin, manual_priority is to become p_manual_priority, whatever the row says.
-- STABLE, so that it reads with the snapshot of the statement that calls it.
create function public.decide_workspace_priorities(
    p_ids uuid[],
    p_pin boolean default false,
    p_manual_priority text default null
)
returns table (
    id uuid,
    repository_id uuid,
    old_priority text,
    new_priority public.tracked_repositories.manual_priority%type,
    manual_priority public.tracked_repositories.manual_priority%type,
    old_is_workspace_repo boolean,
    is_workspace_repo boolean,
    workspace_count integer,
    wrong boolean,
    contended boolean
)
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
declare
    v_pinned public.tracked_repositories.manual_priority%type := p_manual_priority;
    v_repository_ids uuid[] := array(
        select tr.repository_id from public.tracked_repositories tr where tr.id = any (p_ids)
    );
begin
    return query
    select
        tr.id,
        tr.repository_id,
        tr.priority::text,
        p.priority,
        o.manual_priority,
        tr.is_workspace_repo,
        m.workspaces > 0,
        m.workspaces,
        tr.is_workspace_repo is distinct from (m.workspaces > 0)
            or tr.workspace_count is distinct from m.workspaces
            or tr.priority is distinct from p.priority
            or tr.manual_priority is distinct from o.manual_priority,
        -- Locked or being written by somebody, or left so by a transaction that is over.
        tr.xmax <> '0'::xid
    from public.tracked_repositories tr
    left join (
        -- Grouped once for all rows: looking each row's memberships up by itself takes twice as long.
        select wr.repository_id, count(distinct wr.workspace_id)::integer as workspaces
        from public.workspace_repositories wr
        where wr.repository_id = any (v_repository_ids)
        group by wr.repository_id
    ) g on g.repository_id = tr.repository_id
    cross join lateral (select coalesce(g.workspaces, 0) as workspaces) m
    cross join lateral (
        select case
            when p_pin then v_pinned
            when tr.priority = 'high' and tr.is_workspace_repo is not true and tr.manual_priority is null then 'high'
            else tr.manual_priority
        end as manual_priority
    ) o
    cross join lateral (
        select case when m.workspaces > 0 then 'high' else coalesce(o.manual_priority, 'medium') end as priority
    ) p
    where tr.id = any (p_ids);
end
$$;

create or replace function public.apply_workspace_priorities(
    p_ids uuid[],
    p_trigger text,
    p_dry_run boolean,
    p_careful boolean default false,
    p_pin boolean default false,
    p_manual_priority text default null
)
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '1s'
-- The arrays differ in size from call to call by orders of magnitude, and so do the best plans.
set plan_cache_mode = force_custom_plan
as $$
declare
    v_dry_run constant boolean := coalesce(p_dry_run, false);
    v_suspects uuid[];
    v_locked uuid[] := '{}';
    v_right bigint;
    v_right_in_workspace bigint;
    v_examined bigint;
    v_in_workspace bigint;
    v_answer jsonb;
begin
    if not v_dry_run and current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'priorities must be written under READ COMMITTED: an older snapshot hides memberships'
            using errcode = 'invalid_transaction_state';
    end if;

    select
        coalesce(array_agg(d.id) filter (where s.suspect), '{}'),
        count(*) filter (where not s.suspect),
        count(*) filter (where not s.suspect and d.is_workspace_repo)
    into v_suspects, v_right, v_right_in_workspace
    from public.decide_workspace_priorities(p_ids, p_pin, p_manual_priority) d
    cross join lateral (select d.wrong or (p_careful and d.contended and not v_dry_run) as suspect) s;

    -- Writing is a later statement than locking: its snapshot has every membership committed before. Both are in
    -- the same block, which is a subtransaction: rows locked in one and updated in another cost a multixact each.
    begin
        if not v_dry_run then
            v_locked := public.lock_tracked_repositories(v_suspects, p_skip_locked => false);
        end if;
        v_answer := public.write_workspace_priorities(
            v_suspects, v_locked, p_trigger, v_dry_run, p_pin, p_manual_priority
        );
    exception
        -- Somebody keeps a row for longer than lock_timeout: the rows that are free are taken instead, since
        -- the others must not wait for it. A deadlock is only possible with a transaction that locks in
        -- another order, and this one gives way.
        when lock_not_available or deadlock_detected then
            if not v_dry_run then
                v_locked := public.lock_tracked_repositories(v_suspects, p_skip_locked => true);
            end if;
            v_answer := public.write_workspace_priorities(
                v_suspects, v_locked, p_trigger, v_dry_run, p_pin, p_manual_priority
            );
    end;

    v_examined := v_right + (v_answer ->> 'examined')::bigint;
    v_in_workspace := v_right_in_workspace + (v_answer ->> 'workspace_repos')::bigint;
    return v_answer || jsonb_build_object(
        'examined', v_examined,
        'workspace_repos', v_in_workspace,
        'tracked_only_repos', v_examined - v_in_workspace,
        'applied_at', clock_timestamp()
    );
end
$$;

create or replace function public.resync_workspace_priorities_page(
    p_after uuid,
    p_limit integer,
    p_trigger text default 'resync',
    p_dry_run boolean default false
)
returns jsonb
language plpgsql
set search_path = ''
set plan_cache_mode = force_custom_plan
set lock_timeout = '1s'
set statement_timeout = '30s'
set default_transaction_isolation = 'read committed'
as $$
declare
    v_ids uuid[];
    v_next uuid;
    v_untracked bigint := 0;
begin
    perform public.check_workspace_priority_arguments(p_trigger, p_limit);
    v_ids := array(
        select tr.id from public.tracked_repositories tr
        where tr.id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
            or (p_after is null and tr.id = '00000000-0000-0000-0000-000000000000')
        order by tr.id
        limit p_limit + 1
    );
    if cardinality(v_ids) > p_limit then
        v_next := v_ids[p_limit];
    else
        v_untracked := public.count_untracked_repositories(array(select public.find_mismatched_repositories()));
    end if;

    return public.apply_workspace_priorities(v_ids[:p_limit], p_trigger, p_dry_run)
        || jsonb_build_object('untracked', v_untracked, 'next_after', v_next);
end
$$;
    $restore$;
end
$do$;

drop function if exists public.lock_and_write_workspace_priorities(uuid[], text, boolean, boolean, text);

-- Privileges: whoever may resync keeps being able to, service_role or a role of the operator's own.
do $$
declare
    v_function regprocedure;
    v_role text;
begin
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace
            and p.proname in (
                'apply_workspace_priorities', 'decide_workspace_priorities', 'resync_workspace_priorities_page'
            )
    loop
        execute format('revoke all on function %s from public', v_function);
        for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
            execute format('revoke all on function %s from %I', v_function, v_role);
        end loop;
        for v_role in
            select distinct a.grantee::regrole::text
            from pg_proc p cross join lateral aclexplode(p.proacl) a
            where p.oid = to_regprocedure('public.resync_workspace_priorities_page(uuid, integer, text, boolean)')
                and a.grantee <> 0
        loop
            execute format('grant execute on function %s to %s', v_function, v_role);
        end loop;
    end loop;
end
$$;

do $$
begin
    if to_regclass('public.workspace_priority_migrations') is not null then
        delete from public.workspace_priority_migrations where version = '20250103000800';
    end if;
end
$$;

notify pgrst, 'reload schema';
