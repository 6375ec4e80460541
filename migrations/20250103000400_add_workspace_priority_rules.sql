-- The rules, and how a tracked row is corrected by them.
--
-- For a repository that is in n distinct workspaces, by priorityd.memberships():
--   n >= 1   is_workspace_repo = true,  workspace_count = n, priority = 'high', or manual_priority if that is above high
--   n  = 0   is_workspace_repo = false, workspace_count = 0, priority = coalesce(manual_priority, 'medium')
-- A high or critical set by hand (see priorityd.is_override) is remembered in manual_priority.
--
-- Above high is 'critical', where the application has it: a workspace never lowers it. An enum may lack the label, and a
-- comparison with it would fail; so it is expressed as neither high, medium nor low, or compared as text.
--
-- How a concurrent change is never lost. A call first finds the rows that need a change, locks those alone
-- (FOR NO KEY UPDATE), and then, in a later statement, reads membership again: under READ COMMITTED that statement sees
-- every membership that was committed before the lock was taken. A membership committed later causes a call of its own.
-- One gap is left: a row may look right only because another call, which has read membership and is about to write, has
-- not committed yet. Such a row carries that call's transaction in xmax, so rows with an xmax are locked and read again
-- as well (see p_careful).
--
-- Types. `priority` may be an enum or a text. Literals such as 'high' take the type that they are compared with, and
-- variables are declared as the column's %type (manual_priority's, which is never a domain), so the same source serves
-- all schemas, with plans and indexes of the real type and without dynamic SQL.

do $functions$
begin
    if not priorityd.start_unit('20250103000400 functions', 1, '{20250103000300 functions}') then
        return;
    end if;

    -- Two columns of decide have the type of manual_priority: if that has changed, replacing it would fail.
    if (
        select p.proallargtypes[7] <> a.atttypid
        from pg_proc p, pg_attribute a
        where p.oid = to_regprocedure('priorityd.decide(uuid[],boolean,text)')
            and a.attrelid = 'public.tracked_repositories'::regclass and a.attname = 'manual_priority'
    ) then
        drop function priorityd.decide(uuid[], boolean, text);
    end if;

    -- Whether a unique index guarantees that no two rows of the table are equal in these columns, nulls aside. An index
    -- does not cover tables that inherit from its own, whose rows are read as well.
    create or replace function priorityd.is_unique(p_table regclass, p_columns name[])
    returns boolean language sql stable as $$
        select not exists (
            select from pg_inherits h join pg_class c on c.oid = h.inhparent
            where h.inhparent = p_table and c.relkind = 'r'
        ) and exists (
            select from pg_index i
            where i.indrelid = p_table
                and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
                and array(
                    select a.attname
                    from unnest(i.indkey::smallint[]) with ordinality k (attnum, position)
                    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                    where k.position <= i.indnkeyatts
                ) <@ p_columns
        )
    $$;

    -- Whether no pair can repeat: memberships are counted as installed, and unique.
    create or replace function priorityd.pairs_are_unique()
    returns boolean language sql stable as $$
        select priorityd.is_unique('public.workspace_repositories', '{workspace_id, repository_id}')
            and priorityd.memberships_are_as_installed()
    $$;

    -- What each of these tracked rows is and what it should be. The rules are only here, except for the backfill and the
    -- rollback, which deliberately look at less.
    -- With p_pin, manual_priority is to become p_manual_priority, whatever the row says.
    -- STABLE, so that it reads with the snapshot of the statement that calls it.
    create or replace function priorityd.decide(
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
        contended boolean,
        old_manual_priority text,
        old_workspace_count integer
    )
    language plpgsql stable as $$
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
            tr.is_workspace_repo::boolean,
            m.workspaces > 0,
            m.workspaces,
            tr.is_workspace_repo is distinct from (m.workspaces > 0)
                or tr.workspace_count is distinct from m.workspaces
                or tr.priority is distinct from p.priority
                or tr.manual_priority is distinct from o.manual_priority,
            -- Locked or being written by another transaction, or left so by one that has ended.
            tr.xmax <> '0'::xid,
            tr.manual_priority::text,
            tr.workspace_count::integer
        from public.tracked_repositories tr
        left join (
            -- Grouped once for all rows: looking up each row's memberships separately takes twice as long.
            select w.repository_id, count(distinct w.workspace_id)::integer as workspaces
            from priorityd.memberships() w
            where w.repository_id = any (v_repository_ids) and w.repository_id between v_first and v_last
            group by w.repository_id
        ) g on g.repository_id = tr.repository_id
        cross join lateral (select coalesce(g.workspaces, 0) as workspaces) m
        cross join lateral (
            select case
                when p_pin then v_pinned
                when (tr.priority not in ('high', 'medium', 'low') or (tr.priority = 'high' and tr.is_workspace_repo is not true))
                    and priorityd.is_override(
                        tr.priority::text, tr.is_workspace_repo, tr.workspace_count::integer, tr.manual_priority::text,
                        tr.repository_id
                    ) then tr.priority
                else tr.manual_priority
            end as manual_priority
        ) o
        cross join lateral (
            select case
                when m.workspaces > 0 and (o.manual_priority not in ('high', 'medium', 'low')) is not true then 'high'
                else coalesce(o.manual_priority, 'medium')
            end as priority
        ) p
        where tr.id = any (p_ids);
    end
    $$;

    -- Locks these rows and returns those that it got. A call for a single row may wait for it; a call for several skips
    -- locked ones. If it waited for one of them, it would hold the others meanwhile: a user's transaction could end in a
    -- deadlock, and two daemons that hear of the same changes would find their rows locked by each other. Skipped rows
    -- are reported, and the caller retries.
    create or replace function priorityd.lock_tracked_rows(p_ids uuid[], p_wait boolean)
    returns uuid[] language plpgsql as $$
    begin
        if p_wait then
            return array(
                select tr.id from public.tracked_repositories tr
                where tr.id = any (p_ids)
                for no key update
            );
        end if;
        return array(
            select tr.id from public.tracked_repositories tr
            where tr.id = any (p_ids)
            order by tr.id
            for no key update skip locked
        );
    end
    $$;

    -- The outcome of a row: what it was, what it should be, and what it is now (nulls if the UPDATE did not reach it). Its
    -- refusal is in the last two columns.
    if to_regtype('priorityd.outcome') is null then
        create type priorityd.outcome as (
            id uuid,
            repository_id uuid,
            old_priority text,
            old_is_workspace_repo boolean,
            old_manual_priority text,
            old_workspace_count integer,
            new_priority text,
            is_workspace_repo boolean,
            workspace_count integer,
            manual_priority text,
            wrong boolean,
            locked boolean,
            reached boolean,
            written_priority text,
            written_is_workspace_repo boolean,
            written_workspace_count integer,
            written_manual_priority text,
            sqlstate text,
            message text
        );
    end if;

    -- Whether only a part of what was intended for a row took effect.
    create or replace function priorityd.is_half_written(o priorityd.outcome)
    returns boolean language sql immutable as $$
        select o.reached
            and (o.written_priority, o.written_is_workspace_repo, o.written_manual_priority)
                is distinct from (o.new_priority, o.is_workspace_repo, o.manual_priority)
            and (o.written_priority, o.written_is_workspace_repo, o.written_manual_priority)
                is distinct from (o.old_priority, o.old_is_workspace_repo, o.old_manual_priority)
    $$;

    -- The outcomes, with the rows as the commit will leave them: after all triggers, the deferred ones included. Checks
    -- deferred constraints as well; see priorityd.check_deferred.
    create or replace function priorityd.read_back(p_outcomes priorityd.outcome[])
    returns priorityd.outcome[] language plpgsql as $$
    declare
        c_taken_back constant text := 'PT299';
        v_outcomes priorityd.outcome[] := p_outcomes;
    begin
        set constraints all immediate;
        if priorityd.has_after_triggers() then
            v_outcomes := array(
                select row(
                    o.id, o.repository_id, o.old_priority, o.old_is_workspace_repo, o.old_manual_priority,
                    o.old_workspace_count, o.new_priority, o.is_workspace_repo, o.workspace_count, o.manual_priority, o.wrong,
                    o.locked, tr.id is not null, tr.priority::text, tr.is_workspace_repo, tr.workspace_count,
                    tr.manual_priority::text, o.sqlstate, o.message
                )::priorityd.outcome
                from unnest(p_outcomes) o
                left join public.tracked_repositories tr on o.reached and tr.id = o.id
            );
        end if;
        raise exception using errcode = c_taken_back;
    exception
        when sqlstate 'PT299' then
            return v_outcomes;
    end
    $$;

    -- The outcomes of writing none of these rows: what they are, and what they should be.
    create or replace function priorityd.not_written(p_ids uuid[], p_pin boolean, p_manual_priority text)
    returns priorityd.outcome[] language plpgsql stable as $$
    begin
        return array(
            select row(
                d.id, d.repository_id, d.old_priority, d.old_is_workspace_repo, d.old_manual_priority, d.old_workspace_count,
                d.new_priority::text, d.is_workspace_repo, d.workspace_count, d.manual_priority::text,
                d.wrong, false, false, null, null, null, null, null, null
            )::priorityd.outcome
            from priorityd.decide(p_ids, p_pin, p_manual_priority) d
        );
    end
    $$;

    -- Locks these rows, decides on them, and writes those that are wrong; a dry run only decides. Without rows there is no
    -- UPDATE: one that reaches none fires the application's triggers for each statement all the same.
    -- Writing is a later statement than locking: its snapshot has every membership committed before. Both are in one
    -- subtransaction: rows locked in one and updated in another cost a multixact each.
    --
    -- A row that the application's triggers, checks or constraints refuse fails the UPDATE: then both halves are tried
    -- separately, until the failing rows are known. p_most limits how many are isolated; of failures beyond that only the
    -- error is known. Deferred constraints are checked here, too. A row of which a trigger let only a part through fails as
    -- well: with the flag of one decision and the priority of another, it would look like an override.
    create or replace function priorityd.write_rows(
        p_ids uuid[],
        p_wait boolean,
        p_dry_run boolean,
        p_pin boolean,
        p_manual_priority text,
        p_most integer default 100
    )
    returns priorityd.outcome[] language plpgsql
    -- The arrays differ in size from call to call by orders of magnitude, and so do the best plans.
    set plan_cache_mode = force_custom_plan
    as $$
    declare
        v_half constant integer := cardinality(p_ids) / 2;
        v_locked uuid[];
        v_outcomes priorityd.outcome[];
        v_state text;
        v_message text;
    begin
        if p_dry_run or cardinality(p_ids) = 0 then
            return priorityd.not_written(p_ids, p_pin, p_manual_priority);
        end if;
        begin
            v_locked := priorityd.lock_tracked_rows(p_ids, p_wait);
            with decided as (
                select d.*, d.id = any (v_locked) as locked
                from priorityd.decide(p_ids, p_pin, p_manual_priority) d
            ),
            updated as (
                update public.tracked_repositories tr
                set priority = d.new_priority,
                    is_workspace_repo = d.is_workspace_repo,
                    workspace_count = d.workspace_count,
                    manual_priority = d.manual_priority
                from decided d
                -- The ids again, since the planner knows their number, but takes what a function returns for 1,000 rows,
                -- for which it would read the whole of a table that is not large.
                where tr.id = any (p_ids) and tr.id = d.id and d.wrong and d.locked
                returning tr.id, tr.priority::text, tr.is_workspace_repo, tr.workspace_count, tr.manual_priority::text
            )
            select coalesce(array_agg(row(
                    d.id, d.repository_id, d.old_priority, d.old_is_workspace_repo, d.old_manual_priority, d.old_workspace_count,
                    d.new_priority::text, d.is_workspace_repo, d.workspace_count, d.manual_priority::text,
                    d.wrong, d.locked,
                    u.id is not null, u.priority, u.is_workspace_repo, u.workspace_count, u.manual_priority,
                    null, null
                )::priorityd.outcome), '{}')
            into v_outcomes
            from decided d
            left join updated u on u.id = d.id;
            v_outcomes := priorityd.read_back(v_outcomes);
            if exists (select from unnest(v_outcomes) o where priorityd.is_half_written(o)) then
                raise exception 'a trigger or rule of the application let only a part of the change through'
                    using errcode = 'triggered_data_change_violation';
            end if;
            return v_outcomes;
        exception
            when others or assert_failure then
                get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
        end;
        perform priorityd.wait_no_more(v_state);
        if cardinality(p_ids) > 1 and p_most > 0 then
            v_outcomes := priorityd.write_rows(p_ids[:v_half], false, false, p_pin, p_manual_priority, p_most);
            return v_outcomes || priorityd.write_rows(
                p_ids[v_half + 1:], false, false, p_pin, p_manual_priority,
                p_most - (select count(o.sqlstate) from unnest(v_outcomes) o)::integer
            );
        end if;
        v_outcomes := priorityd.not_written(p_ids, p_pin, p_manual_priority);
        for i in 1..cardinality(v_outcomes) loop
            -- Locked: the row itself, or another that a trigger of the application waited for.
            v_outcomes[i].locked := v_state not in ('55P03', '40P01');
            if v_outcomes[i].wrong then
                v_outcomes[i].sqlstate := v_state;
                v_outcomes[i].message := left(v_message, 300);
            end if;
        end loop;
        return v_outcomes;
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
