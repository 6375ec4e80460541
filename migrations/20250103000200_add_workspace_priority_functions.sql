-- The functions that keep priorities true to workspace membership. Safe to apply again.
--
-- The rules, for a repository that is in n distinct workspaces:
--   n >= 1   is_workspace_repo = true,  workspace_count = n, priority = 'high'
--   n  = 0   is_workspace_repo = false, workspace_count = 0, priority = coalesce(manual_priority, 'medium')
-- A row found at priority 'high' without the flag and without manual_priority was set by somebody: it is an
-- explicit override, and manual_priority remembers it from then on.
--
-- How a concurrent change is never lost. A call first finds the rows that need a change, locks those alone
-- (FOR NO KEY UPDATE, in key order, so that two calls can't wait for each other in a circle), and then, in a
-- later statement, reads membership again: under READ COMMITTED that statement sees every membership that was
-- committed before the lock was had. Whoever commits a membership later has a call of their own coming.
-- One gap is left by that: a row may look right only because another call that has already read membership,
-- and is about to write, has not committed yet. Such a row carries that call's transaction in xmax, so
-- rows with an xmax are locked and read again as well (see p_careful).
--
-- Types. `priority` is an enum here and a text there. Literals such as 'high' take the type of what they are
-- compared with, and variables are declared as the column's %type (manual_priority's, which is never a domain),
-- so the same source serves all schemas, with plans and indexes of the real type and no dynamic SQL.
--
-- Limits. lock_timeout counts from the moment a lock is waited for, so setting it on a function works
-- everywhere. statement_timeout is armed before a function starts: in psql the setting on a function comes too
-- late for the call itself. PostgREST reads it from the function and sets it for the transaction, as it does
-- with default_transaction_isolation, which is why both are given here.
--
-- All functions answer with one jsonb: PostgREST cuts sets of rows at 1,000.

insert into public.workspace_priority_migrations (version, name)
values ('20250103000200', '20250103000200_add_workspace_priority_functions.sql')
on conflict (version) do nothing;

-- ---------------------------------------------------------------------------------------------------------
-- Inside: deciding, locking, writing
-- ---------------------------------------------------------------------------------------------------------

create or replace function public.check_workspace_priority_arguments(
    p_trigger text default 'manual',
    p_limit integer default 1
)
returns void
language plpgsql
immutable
set search_path = ''
as $$
declare
    -- The same list as the constraint on repository_priority_changes.trigger.
    c_triggers constant text[] := array[
        'event', 'sweep', 'resync', 'start', 'reconnect', 'signal', 'overflow', 'manual', 'pin', 'migration',
        'rollback'
    ];
    c_most constant integer := 100000;
begin
    if p_trigger is null or p_trigger <> all (c_triggers) then
        raise exception 'p_trigger is %, but must be one of: %',
            coalesce(quote_literal(p_trigger), 'null'), array_to_string(c_triggers, ', ')
            using errcode = 'invalid_parameter_value';
    end if;
    if p_limit is null or p_limit not between 1 and c_most then
        raise exception 'p_limit is %, but must be between 1 and %', coalesce(p_limit::text, 'null'), c_most
            using errcode = 'invalid_parameter_value';
    end if;
end
$$;

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

-- Locks these rows in key order and returns those that it got: all that still exist, or with p_skip_locked
-- those that nobody else holds.
create or replace function public.lock_tracked_repositories(p_ids uuid[], p_skip_locked boolean)
returns uuid[]
language plpgsql
set search_path = ''
as $$
begin
    if p_skip_locked then
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
        order by tr.id
        for no key update
    );
end
$$;

-- Decides on these rows, writes those of p_locked that are wrong, and records what changed. A dry run writes
-- nothing and takes all of them for locked.
create or replace function public.write_workspace_priorities(
    p_ids uuid[],
    p_locked uuid[],
    p_trigger text,
    p_dry_run boolean,
    p_pin boolean,
    p_manual_priority text
)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
    v_answer jsonb;
begin
    with decided as (
        select d.*, d.wrong and (p_dry_run or d.id = any (p_locked)) as to_change
        from public.decide_workspace_priorities(p_ids, p_pin, p_manual_priority) d
    ),
    written as (
        update public.tracked_repositories tr
        set priority = d.new_priority,
            is_workspace_repo = d.is_workspace_repo,
            workspace_count = d.workspace_count,
            manual_priority = d.manual_priority
        from decided d
        where tr.id = d.id and d.to_change and not p_dry_run
    ),
    recorded as (
        insert into public.repository_priority_changes (
            tracked_repository_id, repository_id, old_priority, new_priority,
            old_is_workspace_repo, is_workspace_repo, workspace_count, trigger
        )
        select d.id, d.repository_id, d.old_priority, d.new_priority,
            d.old_is_workspace_repo, d.is_workspace_repo, d.workspace_count, p_trigger
        from decided d
        where d.to_change and not p_dry_run
            -- An unknown flag that becomes false changes nothing for anybody.
            and (d.old_priority is distinct from d.new_priority::text
                or coalesce(d.old_is_workspace_repo, false) <> d.is_workspace_repo)
        order by d.id
    )
    select jsonb_build_object(
        'examined', count(*),
        'workspace_repos', count(*) filter (where d.is_workspace_repo),
        'changed', count(*) filter (where d.to_change),
        'changes', coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'id', d.id,
                    'repository_id', d.repository_id,
                    'old_priority', d.old_priority,
                    'new_priority', d.new_priority,
                    'is_workspace_repo', d.is_workspace_repo,
                    'workspace_count', d.workspace_count
                )
                order by d.id
            ) filter (where d.to_change),
            '[]'
        ),
        -- Still there, and held by another transaction all the time: the caller comes back for them.
        'locked', coalesce(
            jsonb_agg(d.repository_id order by d.repository_id)
            filter (where not p_dry_run and d.id <> all (p_locked) and d.repository_id is not null),
            '[]'
        )
    )
    into v_answer
    from decided d;
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

-- Repositories for which membership and tracked rows disagree, of those that are in a workspace or flagged.
-- One pass over the memberships beside one over the flagged rows, both in repository order from indexes;
-- tracked rows outside workspaces are not read. A repository without any tracked row is among the result.
create or replace function public.find_mismatched_repositories()
returns setof uuid
language plpgsql
stable
set search_path = ''
-- Both indexes are in order already, so merging them takes a third of the time of hashing; the planner believes
-- otherwise. The memory is for the time between many changes and the next vacuum, when sorting replaces one of
-- the indexes; little of it is used otherwise.
set enable_hashjoin = off
set enable_hashagg = off
set work_mem = '64MB'
as $$
begin
    return query
    with mismatched as materialized (
        select m.repository_id as member_id, f.repository_id as flagged_id, f.workspace_count
        from (
            select wr.repository_id, count(*) as workspaces
            from public.workspace_repositories wr
            where wr.repository_id is not null
            group by wr.repository_id
        ) m
        full join (
            select tr.repository_id, tr.workspace_count
            from public.tracked_repositories tr
            where tr.is_workspace_repo and tr.repository_id is not null
        ) f on f.repository_id = m.repository_id
        where m.workspaces is distinct from f.workspace_count
    )
    select coalesce(x.member_id, x.flagged_id)
    from mismatched x
    -- Rows were counted above instead of distinct workspaces, which is several times cheaper and the same where
    -- the application has unique (workspace_id, repository_id). Where it has not, this is the exact condition.
    where x.member_id is null
        or x.flagged_id is null
        or x.workspace_count is distinct from (
            select count(distinct wr.workspace_id)
            from public.workspace_repositories wr
            where wr.repository_id = x.flagged_id
        );
end
$$;

create or replace function public.count_untracked_repositories(p_repository_ids uuid[])
returns bigint
language sql
stable
set search_path = ''
as $$
    select count(*)
    from (select distinct u.repository_id from unnest(p_repository_ids) u (repository_id)) r
    where not exists (
            select from public.tracked_repositories tr where tr.repository_id = r.repository_id
        )
        and exists (
            select from public.workspace_repositories wr where wr.repository_id = r.repository_id
        );
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Sync, sweep, resync
-- ---------------------------------------------------------------------------------------------------------

-- Makes exactly these repositories right. NULLs, duplicates and unknown ids are harmless.
create or replace function public.sync_workspace_priorities(
    p_repository_ids uuid[],
    p_trigger text default 'manual',
    p_dry_run boolean default false
)
returns jsonb
language plpgsql
set search_path = ''
set plan_cache_mode = force_custom_plan
set lock_timeout = '1s'
set statement_timeout = '12s'
set default_transaction_isolation = 'read committed'
as $$
declare
    v_ids uuid[];
begin
    perform public.check_workspace_priority_arguments(p_trigger);
    select array_agg(tr.id) into v_ids
    from public.tracked_repositories tr
    where tr.repository_id = any (p_repository_ids);

    return public.apply_workspace_priorities(v_ids, p_trigger, p_dry_run, p_careful => true)
        || jsonb_build_object('untracked', public.count_untracked_repositories(p_repository_ids));
end
$$;

-- Finds the rows that are wrong and mends at most p_limit of them; `more` says that there were more, and
-- `database_seconds` what it cost, by which the caller paces itself.
-- Cost grows with the memberships, not with the tracked rows.
create or replace function public.sweep_workspace_priorities(
    p_trigger text default 'sweep',
    p_limit integer default 5000,
    p_dry_run boolean default false
)
returns jsonb
language plpgsql
set search_path = ''
set plan_cache_mode = force_custom_plan
set lock_timeout = '1s'
set statement_timeout = '18s'
set default_transaction_isolation = 'read committed'
as $$
declare
    v_mismatched uuid[];
    v_ids uuid[];
begin
    perform public.check_workspace_priority_arguments(p_trigger, p_limit);
    v_mismatched := array(select public.find_mismatched_repositories());

    v_ids := array(
        select tr.id from public.tracked_repositories tr
        where tr.repository_id = any (v_mismatched)
        union
        -- The condition of idx_tracked_repos_priority_drift, word for word.
        (
            select tr.id from public.tracked_repositories tr
            where (
                (is_workspace_repo and workspace_count > 0 and priority = 'high' and repository_id is not null)
                or (not is_workspace_repo and workspace_count = 0 and priority = coalesce(manual_priority, 'medium'))
            ) is not true
            order by tr.id
            limit p_limit + 1
        )
        order by id
        limit p_limit + 1
    );

    return public.apply_workspace_priorities(v_ids[:p_limit], p_trigger, p_dry_run)
        || jsonb_build_object(
            'untracked', public.count_untracked_repositories(v_mismatched),
            'more', cardinality(v_ids) > p_limit,
            'database_seconds', extract(epoch from clock_timestamp() - statement_timestamp())
        );
end
$$;

-- One page of the full resync: p_limit tracked rows after p_after in the order of their ids, null being the
-- start. `next_after` is where the next page starts, null at the end. `untracked` is told on the last page.
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

-- ---------------------------------------------------------------------------------------------------------
-- Manual override, rollback
-- ---------------------------------------------------------------------------------------------------------

-- Sets the override of a repository, or clears it with null, and makes its row right in the same write: a
-- cleared override must not be found again as a 'high' that somebody set.
create or replace function public.set_manual_priority(p_repository_id uuid, p_priority text)
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '1s'
set statement_timeout = '30s'
set default_transaction_isolation = 'read committed'
as $$
declare
    v_ids uuid[];
    v_answer jsonb;
begin
    if p_repository_id is null then
        raise exception 'p_repository_id is null, but must be the id of a repository'
            using errcode = 'invalid_parameter_value';
    end if;
    if p_priority not in ('high', 'medium', 'low') then
        raise exception 'p_priority is %, but must be high, medium, low, or null to clear the override',
            quote_literal(p_priority)
            using errcode = 'invalid_parameter_value';
    end if;
    v_ids := array(select tr.id from public.tracked_repositories tr where tr.repository_id = p_repository_id);
    if v_ids = '{}' then
        raise exception 'repository % is not tracked', p_repository_id
            using errcode = 'PT404', hint = 'Only a repository with a row in tracked_repositories has a priority.';
    end if;

    v_answer := public.apply_workspace_priorities(
        v_ids, 'pin', false, p_careful => true, p_pin => true, p_manual_priority => p_priority
    );
    -- Nobody comes back for this one by themselves, so it may not just be reported.
    if v_answer -> 'locked' <> '[]' then
        raise exception 'repository % is being changed by another transaction', p_repository_id
            using errcode = 'PT409', hint = 'Nothing was changed. Try again in a moment.';
    end if;
    return v_answer || jsonb_build_object('untracked', 0, 'manual_priority', p_priority);
end
$$;

-- Takes everything back: flags off, counts 0, and the priority that each repository has outside workspaces.
-- Explicit overrides are adopted first, so they stay. Stop the daemon before: it would set all this again.
create or replace function public.rollback_workspace_priorities()
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '10s'
set statement_timeout = '10min'
set default_transaction_isolation = 'read committed'
as $$
declare
    v_ids uuid[];
    v_changed bigint;
begin
    with locked as (
        select tr.id from public.tracked_repositories tr
        where tr.is_workspace_repo is distinct from false
            or tr.workspace_count is distinct from 0
            or tr.priority is distinct from coalesce(tr.manual_priority, 'medium')
        order by tr.id
        for no key update
    )
    select array_agg(l.id) into v_ids from locked l;

    with before as (
        select tr.id, tr.priority, tr.is_workspace_repo, case
            when tr.priority = 'high' and tr.is_workspace_repo is not true then coalesce(tr.manual_priority, 'high')
            else tr.manual_priority
        end as manual_priority
        from public.tracked_repositories tr
        join unnest(v_ids) l (id) on l.id = tr.id
    ),
    written as (
        update public.tracked_repositories tr
        set is_workspace_repo = false,
            workspace_count = 0,
            priority = coalesce(b.manual_priority, 'medium'),
            manual_priority = b.manual_priority
        from before b
        where tr.id = b.id
        returning tr.id, tr.repository_id, tr.priority
    ),
    recorded as (
        insert into public.repository_priority_changes (
            tracked_repository_id, repository_id, old_priority, new_priority,
            old_is_workspace_repo, is_workspace_repo, workspace_count, trigger
        )
        select w.id, w.repository_id, b.priority, w.priority, b.is_workspace_repo, false, 0, 'rollback'
        from written w
        join before b on b.id = w.id
        where b.priority is distinct from w.priority or b.is_workspace_repo
        order by w.id
    )
    select count(*) into v_changed from written;

    return jsonb_build_object('changed', v_changed, 'applied_at', clock_timestamp());
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Privileges: service_role only
-- ---------------------------------------------------------------------------------------------------------

-- The owner keeps his own right. Roles are those that exist: plain PostgreSQL has none of Supabase's.
do $$
declare
    v_function regprocedure;
    v_role text;
begin
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.proname in (
            'apply_workspace_priorities', 'check_workspace_priority_arguments', 'count_untracked_repositories',
            'decide_workspace_priorities', 'find_mismatched_repositories', 'lock_tracked_repositories',
            'resync_workspace_priorities_page', 'rollback_workspace_priorities', 'set_manual_priority',
            'sweep_workspace_priorities', 'sync_workspace_priorities', 'write_workspace_priorities'
        )
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
