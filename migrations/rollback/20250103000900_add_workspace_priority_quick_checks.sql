-- Undoes 20250103000900_add_workspace_priority_quick_checks.sql. Stop the daemon before: it would miss a parameter.

drop function if exists public.memberships_add_up(uuid[]);
drop function if exists public.find_mismatched_repositories_between(uuid, uuid);

-- As 20250103000200 and 20250103000800 have them; where they are gone already they stay away.
do $do$
begin
    if to_regprocedure('public.sweep_workspace_priorities(text, integer, boolean, uuid[])') is null then
        return;
    end if;
    execute $restore$
drop function public.sweep_workspace_priorities(text, integer, boolean, uuid[]);

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
    $restore$;
end
$do$;

-- Privileges: whoever may resync may sweep, service_role or a role of the operator's own.
do $$
declare
    v_function regprocedure;
    v_role text;
begin
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.proname = 'sweep_workspace_priorities'
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
        delete from public.workspace_priority_migrations where version = '20250103000900';
    end if;
end
$$;

notify pgrst, 'reload schema';
