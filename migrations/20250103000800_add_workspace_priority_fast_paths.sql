-- A full resync that costs little more than reading the two tables once, and writing what is wrong. Safe to apply
-- again. The rules, and why no concurrent change is lost, are at the top of 20250103000200.
--
-- Its pages are ranges of repositories, no longer of the tracked rows' own ids: within a range the memberships are a
-- range of their index too, so each is read once in a whole resync, beside the tracked rows in the order in which
-- they are stored. By the ids of rows, memberships had to be looked up one by one.

insert into public.workspace_priority_migrations (version, name)
values ('20250103000800', '20250103000800_add_workspace_priority_fast_paths.sql')
on conflict (version) do nothing;

-- Dropped first because two of its columns have the type of manual_priority: were that changed since, replacing
-- would fail.
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
        select tr.repository_id from public.tracked_repositories tr
        where tr.id = any (p_ids) and tr.repository_id is not null
        order by tr.repository_id
    );
    -- Repositories that are close together, as those of a resync's page are, are a small range of the index. For
    -- thousands of single ones the planner prefers to read all memberships.
    v_first uuid := v_repository_ids[1];
    v_last uuid := v_repository_ids[cardinality(v_repository_ids)];
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
        where wr.repository_id = any (v_repository_ids) and wr.repository_id between v_first and v_last
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

-- Locks these rows, decides on them, and writes those that are wrong: what apply_workspace_priorities does once it
-- knows whom to suspect. A caller that knows by itself is spared deciding twice.
create or replace function public.lock_and_write_workspace_priorities(
    p_suspects uuid[],
    p_trigger text,
    p_dry_run boolean,
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
    v_locked uuid[] := '{}';
    v_answer jsonb;
begin
    if not v_dry_run and current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'priorities must be written under READ COMMITTED: an older snapshot hides memberships'
            using errcode = 'invalid_transaction_state';
    end if;

    -- Writing is a later statement than locking: its snapshot has every membership committed before. Both are in
    -- the same block, which is a subtransaction: rows locked in one and updated in another cost a multixact each.
    begin
        if not v_dry_run then
            v_locked := public.lock_tracked_repositories(p_suspects, p_skip_locked => false);
        end if;
        v_answer := public.write_workspace_priorities(
            p_suspects, v_locked, p_trigger, v_dry_run, p_pin, p_manual_priority
        );
    exception
        -- Somebody keeps a row for longer than lock_timeout: the rows that are free are taken instead, since
        -- the others must not wait for it. A deadlock is only possible with a transaction that locks in
        -- another order, and this one gives way.
        when lock_not_available or deadlock_detected then
            if not v_dry_run then
                v_locked := public.lock_tracked_repositories(p_suspects, p_skip_locked => true);
            end if;
            v_answer := public.write_workspace_priorities(
                p_suspects, v_locked, p_trigger, v_dry_run, p_pin, p_manual_priority
            );
    end;
    return v_answer;
end
$$;

-- Makes these tracked rows right and answers in the form that sync, sweep, resync and pin share.
-- p_careful: also lock rows that look right but have an xmax, and decide on them again (see the top). Calls
-- that speak for a certain change need it. Sweep and resync do without: to them a row that another call is just
-- writing is that call's business, and a row can keep the xmax of a finished transaction for long.
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
    v_right bigint;
    v_right_in_workspace bigint;
    v_examined bigint;
    v_in_workspace bigint;
    v_answer jsonb;
begin
    select
        coalesce(array_agg(d.id) filter (where s.suspect), '{}'),
        count(*) filter (where not s.suspect),
        count(*) filter (where not s.suspect and d.is_workspace_repo)
    into v_suspects, v_right, v_right_in_workspace
    from public.decide_workspace_priorities(p_ids, p_pin, p_manual_priority) d
    cross join lateral (select d.wrong or (p_careful and d.contended and not v_dry_run) as suspect) s;

    v_answer := public.lock_and_write_workspace_priorities(
        v_suspects, p_trigger, v_dry_run, p_pin, p_manual_priority
    );

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

-- One page of the full resync: some p_limit tracked rows after the repository p_after, null being the start.
-- `next_after` is where the next page starts, null at the end. Rows without a repository come with the last page.
--
-- What looks wrong here is only suspected: lock_and_write_workspace_priorities decides. A row that looks right
-- while another call is about to write it is that call's business, as ever.
-- Where many rows are wrong the page is made shorter, so that no transaction holds locks on many for long.
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
set jit = off
set lock_timeout = '1s'
set statement_timeout = '30s'
set default_transaction_isolation = 'read committed'
as $$
declare
    c_first constant uuid := '00000000-0000-0000-0000-000000000000';
    c_last constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    c_most_writes constant integer := 5000;
    v_limit integer := p_limit;
    v_from uuid := coalesce(p_after, c_first);
    v_until uuid;
    v_ends boolean;
    v_suspects uuid[];
    v_right bigint;
    v_right_in_workspace bigint;
    v_untracked bigint;
    v_examined bigint;
    v_in_workspace bigint;
    v_answer jsonb;
begin
    perform public.check_workspace_priority_arguments(p_trigger, p_limit);
    loop
        v_until := (
            select tr.repository_id from public.tracked_repositories tr
            where tr.repository_id >= v_from and (p_after is null or tr.repository_id <> p_after)
            order by tr.repository_id
            offset v_limit - 1
            limit 1
        );
        v_ends := v_until is null
            or not exists (select from public.tracked_repositories tr where tr.repository_id > v_until);
        if v_ends then
            v_until := c_last;
        end if;

        select
            count(*) filter (where s.id is not null and not s.suspect),
            count(*) filter (where s.id is not null and not s.suspect and s.workspaces > 0),
            coalesce(array_agg(s.id) filter (where s.id is not null and s.suspect), '{}'),
            count(*) filter (where s.id is null)
        into v_right, v_right_in_workspace, v_suspects, v_untracked
        from (
            select t.id, m.workspaces, t.drifted or t.workspace_count <> coalesce(m.workspaces, 0) as suspect
            from (
                -- The condition of idx_tracked_repos_priority_drift; what it lets pass has a count.
                select tr.id, tr.repository_id, tr.workspace_count, (
                        (is_workspace_repo and workspace_count > 0 and priority = 'high' and repository_id is not null)
                        or (
                            not is_workspace_repo and workspace_count = 0
                            and priority = coalesce(manual_priority, 'medium')
                        )
                    ) is not true as drifted
                from public.tracked_repositories tr
                where tr.repository_id >= v_from and tr.repository_id <= v_until
                    and (p_after is null or tr.repository_id <> p_after)
            ) t
            full join (
                -- Rows, not distinct workspaces: where the two differ, it is found out about the suspects.
                select wr.repository_id, count(*) as workspaces
                from public.workspace_repositories wr
                where wr.repository_id >= v_from and wr.repository_id <= v_until
                    and (p_after is null or wr.repository_id <> p_after)
                group by wr.repository_id
            ) m on m.repository_id = t.repository_id
        ) s;
        exit when p_dry_run or v_limit = 1 or cardinality(v_suspects) <= c_most_writes;
        v_limit := greatest(1, least(v_limit, v_right + cardinality(v_suspects)) * c_most_writes
            / cardinality(v_suspects) * 9 / 10);
    end loop;

    if v_ends then
        select
            v_right + count(*) filter (where not r.drifted),
            v_suspects || coalesce(array_agg(r.id) filter (where r.drifted), '{}')
        into v_right, v_suspects
        from (
            select tr.id, (
                    not is_workspace_repo and workspace_count = 0 and priority = coalesce(manual_priority, 'medium')
                ) is not true as drifted
            from public.tracked_repositories tr
            where tr.repository_id is null
        ) r;
    end if;

    v_answer := public.lock_and_write_workspace_priorities(v_suspects, p_trigger, p_dry_run);
    v_examined := v_right + (v_answer ->> 'examined')::bigint;
    v_in_workspace := v_right_in_workspace + (v_answer ->> 'workspace_repos')::bigint;
    return v_answer || jsonb_build_object(
        'examined', v_examined,
        'workspace_repos', v_in_workspace,
        'tracked_only_repos', v_examined - v_in_workspace,
        'applied_at', clock_timestamp(),
        'untracked', v_untracked,
        'next_after', case when not v_ends then v_until end
    );
end
$$;

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
                'apply_workspace_priorities', 'decide_workspace_priorities', 'lock_and_write_workspace_priorities',
                'resync_workspace_priorities_page'
            )
    loop
        execute format('revoke all on function %s from public', v_function);
        for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
            execute format('revoke all on function %s from %I', v_function, v_role);
        end loop;
        for v_role in
            select distinct a.grantee::regrole::text
            from pg_proc p cross join lateral aclexplode(p.proacl) a
            where p.oid = 'public.resync_workspace_priorities_page(uuid, integer, text, boolean)'::regprocedure
                and a.grantee <> 0
        loop
            execute format('grant execute on function %s to %s', v_function, v_role);
        end loop;
    end loop;
end
$$;

notify pgrst, 'reload schema';
