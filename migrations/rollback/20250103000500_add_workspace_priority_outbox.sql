-- Undoes 20250103000500_add_workspace_priority_outbox.sql. Stop the daemon before. The audit trail stays.

do $$
begin
    perform set_config('lock_timeout', '15s', true);
end
$$;

drop function if exists public.trim_priority_changes(integer, bigint, integer);
drop function if exists public.return_priority_changes(uuid, bigint[], text, double precision);
drop function if exists public.abandon_priority_changes(bigint[], text[]);
drop function if exists public.mark_priority_changes_dispatched(bigint[]);
drop function if exists public.claim_priority_changes(uuid, integer, double precision);
drop function if exists public.name_of_tracked_repository(uuid);
drop function if exists public.open_priority_outbox(integer);

drop index if exists public.idx_repository_priority_changes_abandoned;
drop index if exists public.idx_repository_priority_changes_tried;

do $undo$
begin
    if to_regclass('public.workspace_priority_migrations') is null then
        return;
    end if;
    delete from public.workspace_priority_migrations where version = '20250103000500';
    if to_regprocedure('public.workspace_priority_snapshot()') is null then
        return;
    end if;
    -- The snapshot as 20250103000300 has it.
    execute $snapshot$
create or replace function public.workspace_priority_snapshot()
returns jsonb
language plpgsql
stable
set search_path = ''
set statement_timeout = '30s'
as $$
declare
    v_repositories jsonb;
    v_inversions bigint;
begin
    select coalesce(jsonb_agg(to_jsonb(g) order by g.is_workspace_repo desc, g.priority), '[]'),
        coalesce(sum(g.count) filter (where g.is_workspace_repo and g.priority is distinct from 'high'), 0)
    into v_repositories, v_inversions
    from (
        select tr.is_workspace_repo, tr.priority, count(*) as count
        from public.tracked_repositories tr
        group by tr.is_workspace_repo, tr.priority
    ) g;

    return jsonb_build_object(
        'repositories', v_repositories,
        'inversions', v_inversions,
        'untracked', public.count_untracked_repositories(array(select public.find_mismatched_repositories())),
        'outbox_pending', (
            select count(*) from public.repository_priority_changes c
            where c.dispatched_at is null and c.abandoned_at is null
        ),
        'outbox_oldest_seconds', coalesce(
            (
                select greatest(extract(epoch from clock_timestamp() - c.changed_at), 0)
                from public.repository_priority_changes c
                where c.dispatched_at is null and c.abandoned_at is null
                order by c.id
                limit 1
            ),
            0
        ),
        'schema_version', public.workspace_priority_schema_version(),
        'taken_at', clock_timestamp()
    );
end
$$;
    $snapshot$;
end
$undo$;

drop function if exists public.priority_outbox_depth();
drop table if exists public.workspace_priority_outbox;

notify pgrst, 'reload schema';
