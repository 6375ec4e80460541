-- The trail of every change, and the first fill of the columns.

do $tables$
begin
    if not priorityd.start_unit('20250103000100 backfill', 1, '{20250103000000 membership}') then
        return;
    end if;

    -- The possible causes of a change.
    create or replace function priorityd.triggers()
    returns text[] language sql immutable as $$
        select array['event', 'sweep', 'resync', 'start', 'reconnect', 'signal', 'overflow', 'manual', 'pin',
            'migration', 'rollback']
    $$;

    -- One row for each change of a priority, the flag or the manual override, written in the transaction that makes the
    -- change: the trail neither misses a change nor records one that was rolled back. The dispatcher reads the same rows:
    -- they are the outbox, too. No foreign keys: the trail outlives the repository, and the application's deletes must
    -- not pay for it.
    if to_regclass('public.repository_priority_changes') is null then
        create table public.repository_priority_changes (
            id bigint generated always as identity primary key,
            tracked_repository_id uuid not null,
            repository_id uuid,
            old_priority text,
            new_priority text not null,
            old_is_workspace_repo boolean,
            is_workspace_repo boolean not null,
            workspace_count integer not null,
            old_manual_priority text,
            manual_priority text,
            trigger text not null constraint repository_priority_changes_trigger_check
                check (trigger = any (priorityd.triggers())),
            changed_at timestamptz not null default clock_timestamp(),
            -- Dispatching. A row is pending until it is dispatched or abandoned; an unfinished claim (its holder died)
            -- expires and is taken over.
            daemon_id uuid,
            claimed_at timestamptz,
            attempts integer not null default 0,
            next_attempt_at timestamptz not null default clock_timestamp(),
            last_error text,
            dispatched_at timestamptz,
            abandoned_at timestamptz
        );
        alter table public.repository_priority_changes enable row level security;
        -- The pending rows only, oldest first: as small as the backlog, however long the trail grows.
        create index idx_repository_priority_changes_pending
        on public.repository_priority_changes (id) where dispatched_at is null and abandoned_at is null;
        -- The last changes of one repository.
        create index idx_repository_priority_changes_repository
        on public.repository_priority_changes (repository_id, id);
        comment on table public.repository_priority_changes is
        'Audit trail and outbox of announcements: one row for each change of a priority, the flag or the manual override.';
        insert into priorityd.created values ('table public.repository_priority_changes');
    end if;

    -- Whether a priority was set by hand and must be remembered. 'critical' always was: no rule sets it. 'high' was if
    -- the flag is off, unless any workspace holds the repository, or a count is left: then the flags were rolled back,
    -- and nothing was chosen.
    create or replace function priorityd.is_override(
        p_priority text, p_flag boolean, p_count integer, p_manual text, p_repository_id uuid
    )
    returns boolean language plpgsql stable as $$
    begin
        if p_priority = 'critical' then
            return true;
        end if;
        if (p_priority = 'high' and p_flag is not true and coalesce(p_count, 0) = 0 and p_manual is null) is not true then
            return false;
        end if;
        return not exists (select from public.workspace_repositories wr where wr.repository_id = p_repository_id);
    end
    $$;

    -- Whether triggers of the application fire after an UPDATE of a tracked row. They may change the row again, which
    -- RETURNING does not see; a deferred one does so at the commit.
    create or replace function priorityd.has_after_triggers()
    returns boolean language plpgsql stable as $$
    declare
        c_table constant regclass := 'public.tracked_repositories';
    begin
        return exists (
            select from pg_trigger t
            where (t.tgrelid = c_table or t.tgrelid in (select p.relid from pg_partition_tree(c_table) p))
                -- After, update.
                and t.tgtype & 18 = 16 and not t.tgisinternal and t.tgenabled <> 'D'
        );
    end
    $$;

    -- The backfill, of these tracked rows or of all. Repositories in a workspace get their flag, count and priority; for
    -- the others, overrides are remembered and null flags filled in; the rest is left to the first resync. There were no
    -- flags before, so 'high' in a workspace says nothing about an override; 'critical' does, and stays. Recorded as
    -- dispatched: the change is on record, but the backfill is not announced.
    create or replace function priorityd.backfill(p_ids uuid[] default null)
    returns void language plpgsql
    set plan_cache_mode = force_custom_plan
    as $$
    declare
        v_repository_ids uuid[] := array(select tr.repository_id from public.tracked_repositories tr where tr.id = any (p_ids));
        v_last bigint := (select coalesce(max(c.id), 0) from public.repository_priority_changes c);
    begin
        if row_security_active('public.tracked_repositories') or row_security_active('public.workspace_repositories') then
            raise exception 'row level security may hide rows from %, who applies this migration', current_user
                using errcode = 'insufficient_privilege', hint = 'Apply it as a role with BYPASSRLS.';
        end if;
        with counted as (
            select m.repository_id, count(distinct m.workspace_id)::integer as workspaces
            from priorityd.memberships() m
            where p_ids is null or m.repository_id = any (v_repository_ids)
            group by m.repository_id
        ),
        found as (
            select tr.id, tr.priority, tr.manual_priority, tr.is_workspace_repo, coalesce(c.workspaces, 0) as workspaces,
                (c.workspaces is null or tr.priority::text = 'critical') and priorityd.is_override(
                    tr.priority::text, tr.is_workspace_repo, tr.workspace_count::integer, tr.manual_priority::text,
                    tr.repository_id
                ) as adopt
            from public.tracked_repositories tr
            left join counted c on c.repository_id = tr.repository_id
            where (p_ids is null or tr.id = any (p_ids)) and (
                tr.is_workspace_repo is null or tr.workspace_count is null
                or (c.workspaces > 0 and (
                    not tr.is_workspace_repo or tr.workspace_count <> c.workspaces or tr.priority is distinct from 'high'
                ))
                or (tr.priority = 'high' and c.workspaces is null and tr.manual_priority is null)
                or (tr.priority::text = 'critical' and tr.manual_priority is distinct from tr.priority)
            )
            order by tr.id
            -- A row locked by the application is left for the next time.
            for no key update of tr skip locked
        ),
        written as (
            update public.tracked_repositories tr
            set is_workspace_repo = f.workspaces > 0 or coalesce(tr.is_workspace_repo, false),
                workspace_count = case when f.workspaces > 0 then f.workspaces else coalesce(tr.workspace_count, 0) end,
                priority = case
                    when f.workspaces = 0 or f.adopt then tr.priority
                    when f.manual_priority not in ('high', 'medium', 'low') then f.manual_priority
                    else 'high'
                end,
                manual_priority = case when f.adopt then tr.priority else f.manual_priority end
            from found f
            where tr.id = f.id and (
                f.workspaces > 0 or f.adopt or tr.is_workspace_repo is null or tr.workspace_count is null
            )
            returning tr.*
        )
        insert into public.repository_priority_changes (
            tracked_repository_id, repository_id, old_priority, new_priority, old_is_workspace_repo, is_workspace_repo,
            workspace_count, old_manual_priority, manual_priority, trigger, dispatched_at
        )
        select w.id, w.repository_id, f.priority, w.priority, f.is_workspace_repo, w.is_workspace_repo,
            w.workspace_count, f.manual_priority, w.manual_priority, 'migration', clock_timestamp()
        from written w join found f using (id)
        where f.manual_priority is distinct from w.manual_priority or f.priority is distinct from w.priority
            or coalesce(f.is_workspace_repo, false) <> w.is_workspace_repo
        order by w.id;
        set constraints all immediate;
        if priorityd.has_after_triggers() then
            -- What is on record is what the rows are by now.
            update public.repository_priority_changes c
            set new_priority = tr.priority::text, is_workspace_repo = tr.is_workspace_repo,
                workspace_count = tr.workspace_count, manual_priority = tr.manual_priority::text
            from public.tracked_repositories tr
            where c.id > v_last and c.trigger = 'migration' and tr.id = c.tracked_repository_id;
            delete from public.repository_priority_changes c
            where c.id > v_last and c.trigger = 'migration' and c.old_priority is not distinct from c.new_priority
                and coalesce(c.old_is_workspace_repo, false) = c.is_workspace_repo
                and c.old_manual_priority is not distinct from c.manual_priority;
        end if;
    end
    $$;

    -- The same where the application refuses to change some rows: a failing batch is halved until these are known; they
    -- are left to the daemon, which retries and names them. Only a limited number is isolated one by one; rows that fail
    -- together with more are left, too. Returns how many rows were left.
    create or replace function priorityd.backfill_as_allowed(p_ids uuid[] default null, p_most integer default 100)
    returns integer language plpgsql as $$
    declare
        v_ids uuid[] := p_ids;
        v_half integer;
        v_message text;
        v_left integer;
    begin
        begin
            perform priorityd.backfill(p_ids);
            return 0;
        exception
            -- A role that may not see or write everything gets an error.
            when insufficient_privilege then
                if row_security_active('public.tracked_repositories')
                    or row_security_active('public.workspace_repositories') then
                    raise;
                end if;
                v_message := sqlerrm;
            when others or assert_failure then
                v_message := sqlerrm;
        end;
        v_ids := coalesce(v_ids, array(select tr.id from public.tracked_repositories tr order by tr.id));
        v_half := cardinality(v_ids) / 2;
        if v_half = 0 or p_most <= 0 then
            raise warning 'left to the daemon: % tracked rows, such as %: %', cardinality(v_ids), v_ids[1], v_message;
            return cardinality(v_ids);
        end if;
        v_left := priorityd.backfill_as_allowed(v_ids[:v_half], p_most);
        return v_left + priorityd.backfill_as_allowed(v_ids[v_half + 1:], p_most - v_left);
    end
    $$;

    if current_setting('priorityd.part', true) = 'columns' then
        return;
    end if;
    -- From then on, the daemon decides what a change means.
    if not exists (select from priorityd.created c where c.what = 'backfill') then
        perform priorityd.backfill_as_allowed();
        insert into priorityd.created values ('backfill');
    end if;
    if exists (
        select from pg_constraint
        where conrelid = 'public.tracked_repositories'::regclass
            and conname = 'tracked_repositories_manual_priority_check' and not convalidated
    ) then
        alter table public.tracked_repositories validate constraint tracked_repositories_manual_priority_check;
    end if;
end
$tables$;
