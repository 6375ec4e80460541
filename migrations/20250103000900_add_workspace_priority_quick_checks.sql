-- Sweeps and resyncs that find little, at a fraction of the cost. Safe to apply again. The rules are at the top of
-- 20250103000200.
--
-- A row is right if it does not contradict itself, which an index tells, and if memberships and flagged rows agree about
-- its repository. So a sweep first adds up a hash of every membership and of every flagged row, and is content when the
-- sums agree; and a resync, which compares them one by one, has no need to read the rows that are not flagged.

insert into public.workspace_priority_migrations (version, name)
values ('20250103000900', '20250103000900_add_workspace_priority_quick_checks.sql')
on conflict (version) do nothing;

-- Whether memberships and flagged rows agree, but for these repositories, which are in a workspace and not tracked.
-- Each membership counts as the hash of its repository, each flagged row as that times its count. So one row that is
-- wrong never escapes; several could only if their hashes happened to cancel out, for which there is one chance in
-- four thousand million, and then the next full resync finds them.
-- False as well where a workspace has a repository twice: only counting distinct ones tells then.
create or replace function public.memberships_add_up(p_untracked uuid[])
returns boolean
language sql
stable
set search_path = ''
set jit = off
as $$
    select not exists (select from public.tracked_repositories tr where tr.repository_id = any (p_untracked))
        and coalesce((
            select sum(uuid_hash(wr.repository_id)) from public.workspace_repositories wr
            where wr.repository_id is not null
        ), 0) = coalesce((
            select sum(uuid_hash(tr.repository_id)::bigint * tr.workspace_count) from public.tracked_repositories tr
            where tr.is_workspace_repo and tr.repository_id is not null
        ), 0) + coalesce((
            select sum(uuid_hash(wr.repository_id)) from public.workspace_repositories wr
            where wr.repository_id = any (p_untracked)
        ), 0)
$$;

-- Two parameter lists of one name would be a choice that nobody has to make.
drop function if exists public.sweep_workspace_priorities(text, integer, boolean);

-- Finds and mends up to p_limit rows that disagree with membership.
-- p_untracked: the repositories that the last sweep has found untracked. Given those, memberships and rows are compared
-- one by one only if they do not add up; without, always. `untracked_repository_ids` are those that the next sweep may
-- give, null if they are too many to carry about, and `compared` is whether all were compared one by one.
create or replace function public.sweep_workspace_priorities(
    p_trigger text default 'sweep',
    p_limit integer default 5000,
    p_dry_run boolean default false,
    p_untracked uuid[] default null
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
    c_most_carried constant integer := 1000;
    v_drifted uuid[];
    v_mismatched uuid[] := p_untracked;
    v_ids uuid[];
    v_untracked uuid[];
    v_compared boolean;
    v_more boolean;
    v_answer jsonb;
    v_rest jsonb;
begin
    perform public.check_workspace_priority_arguments(p_trigger, p_limit);

    -- First the rows that contradict themselves: what is mended adds up again.
    v_drifted := array(
        select tr.id from public.tracked_repositories tr
        -- The condition of idx_tracked_repos_priority_drift, word for word.
        where (
            (is_workspace_repo and workspace_count > 0 and priority = 'high' and repository_id is not null)
            or (not is_workspace_repo and workspace_count = 0 and priority = coalesce(manual_priority, 'medium'))
        ) is not true
        order by tr.id
        limit p_limit + 1
    );
    v_answer := public.apply_workspace_priorities(v_drifted[:p_limit], p_trigger, p_dry_run);

    v_compared := p_untracked is null or not public.memberships_add_up(p_untracked);
    if v_compared then
        v_mismatched := array(select public.find_mismatched_repositories());
    end if;
    v_ids := array(
        select tr.id from public.tracked_repositories tr
        where v_compared and tr.repository_id = any (v_mismatched)
        except
        select d.id from unnest(v_drifted) d (id)
        order by id
        limit greatest(0, p_limit - cardinality(v_drifted)) + 1
    );
    v_more := cardinality(v_drifted) + cardinality(v_ids) > p_limit;
    v_ids := v_ids[:greatest(0, p_limit - cardinality(v_drifted))];
    if v_ids <> '{}' then
        v_rest := public.apply_workspace_priorities(v_ids, p_trigger, p_dry_run);
        v_answer := v_rest || jsonb_build_object(
            'examined', (v_answer ->> 'examined')::bigint + (v_rest ->> 'examined')::bigint,
            'workspace_repos', (v_answer ->> 'workspace_repos')::bigint + (v_rest ->> 'workspace_repos')::bigint,
            'tracked_only_repos',
            (v_answer ->> 'tracked_only_repos')::bigint + (v_rest ->> 'tracked_only_repos')::bigint,
            'changed', (v_answer ->> 'changed')::bigint + (v_rest ->> 'changed')::bigint,
            'changes', (v_answer -> 'changes') || (v_rest -> 'changes'),
            'locked', (v_answer -> 'locked') || (v_rest -> 'locked')
        );
    end if;

    v_untracked := array(
        select distinct u.repository_id from unnest(v_mismatched) u (repository_id)
        where not exists (
                select from public.tracked_repositories tr where tr.repository_id = u.repository_id
            )
            and exists (
                select from public.workspace_repositories wr where wr.repository_id = u.repository_id
            )
        order by u.repository_id
    );
    return v_answer || jsonb_build_object(
        'untracked', cardinality(v_untracked),
        'untracked_repository_ids',
        case when cardinality(v_untracked) <= c_most_carried then to_jsonb(v_untracked) end,
        'compared', v_compared,
        'more', v_more,
        'database_seconds', extract(epoch from clock_timestamp() - statement_timestamp())
    );
end
$$;

-- Repositories after p_after (null being the start) up to p_until for which memberships and flagged rows may disagree.
-- Rows are counted, not distinct workspaces: where the two differ, it is found out about the suspects.
create or replace function public.find_mismatched_repositories_between(p_after uuid, p_until uuid)
returns setof uuid
language plpgsql
stable
set search_path = ''
set plan_cache_mode = force_custom_plan
-- As for find_mismatched_repositories: both indexes are in order already.
set enable_hashjoin = off
set enable_hashagg = off
set work_mem = '64MB'
as $$
declare
    v_from constant uuid := coalesce(p_after, '00000000-0000-0000-0000-000000000000');
begin
    return query
    select coalesce(m.repository_id, f.repository_id)
    from (
        select wr.repository_id, count(*) as workspaces
        from public.workspace_repositories wr
        where wr.repository_id >= v_from and wr.repository_id <= p_until
            and (p_after is null or wr.repository_id <> p_after)
        group by wr.repository_id
    ) m
    full join (
        select tr.repository_id, tr.workspace_count
        from public.tracked_repositories tr
        where tr.is_workspace_repo and tr.repository_id >= v_from and tr.repository_id <= p_until
            and (p_after is null or tr.repository_id <> p_after)
    ) f on f.repository_id = m.repository_id
    where m.workspaces is distinct from f.workspace_count;
end
$$;

-- One page of the full resync: some p_limit tracked rows after the repository p_after, null being the start.
-- `next_after` is where the next page starts, null at the end. Rows without a repository come with the last page.
--
-- What looks wrong here is only suspected: lock_and_write_workspace_priorities decides. A row that looks right
-- while another call is about to write it is that call's business, as ever.
-- Where many rows are wrong the page is made shorter, so that no transaction holds locks on many for long; and all rows
-- are read, since picking out so many takes longer.
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
    c_most_writes constant integer := 6250;
    c_few constant integer := 1000;
    v_limit integer := p_limit;
    v_from uuid := coalesce(p_after, c_first);
    v_until uuid;
    v_ends boolean;
    v_drifted uuid[];
    v_mismatched uuid[];
    v_suspects uuid[];
    v_right bigint;
    v_right_in_workspace bigint;
    v_untracked bigint;
    v_examined bigint;
    v_in_workspace bigint;
    v_answer jsonb;
begin
    perform public.check_workspace_priority_arguments(p_trigger, p_limit);
    v_drifted := array(
        select tr.id from public.tracked_repositories tr
        -- The condition of idx_tracked_repos_priority_drift, word for word.
        where (
            (is_workspace_repo and workspace_count > 0 and priority = 'high' and repository_id is not null)
            or (not is_workspace_repo and workspace_count = 0 and priority = coalesce(manual_priority, 'medium'))
        ) is not true
        limit c_few + 1
    );
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

        if cardinality(v_drifted) <= c_few then
            v_mismatched := array(select public.find_mismatched_repositories_between(p_after, v_until));
            v_suspects := array(
                select tr.id from public.tracked_repositories tr where tr.repository_id = any (v_mismatched)
                union
                select tr.id from public.tracked_repositories tr
                where tr.id = any (v_drifted) and tr.repository_id >= v_from and tr.repository_id <= v_until
                    and (p_after is null or tr.repository_id <> p_after)
            );
            -- From indexes alone: neither reads the table.
            v_right := (
                select count(*) from public.tracked_repositories tr
                where tr.repository_id >= v_from and tr.repository_id <= v_until
                    and (p_after is null or tr.repository_id <> p_after)
            ) - cardinality(v_suspects);
            v_right_in_workspace := (
                select count(*) from public.tracked_repositories tr
                where tr.is_workspace_repo and tr.repository_id >= v_from and tr.repository_id <= v_until
                    and (p_after is null or tr.repository_id <> p_after)
            ) - (
                select count(*) from public.tracked_repositories tr
                where tr.is_workspace_repo and tr.id = any (v_suspects)
            );
            v_untracked := public.count_untracked_repositories(v_mismatched);
        else
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
        end if;
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

-- Privileges: whoever may resync may sweep, service_role or a role of the operator's own.
do $$
declare
    v_function regprocedure;
    v_role text;
begin
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace
            and p.proname in (
                'find_mismatched_repositories_between', 'memberships_add_up', 'sweep_workspace_priorities'
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
