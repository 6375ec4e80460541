-- The outbox: hands recorded changes to the dispatchers. May be left out.
--
-- A row of repository_priority_changes is *pending* while it waits to be announced: recorded after announcing
-- began, and neither dispatched nor abandoned. A dispatcher claims pending rows, sends them, and
-- marks them. A claim is a next_attempt_at in the future: that of a dead dispatcher expires by itself, and a row may then
-- be sent again, under the same id.
--
-- While a snapshot is held open, dispatched rows stay in the index of pending rows, and a scan has to skip them. So there
-- is a low-water mark, `pending_after`: no row up to it is pending. A row may become visible long after one with a higher
-- id, but its transaction gets an id before the row does. So a mark is proposed together with the newest transaction at
-- that time, and counts once none of the older ones is open. Once a minute a claim also looks at the rows before the mark:
-- an abandoned one may have been reset by hand.

do $tables$
begin
    if not priorityd.start_unit('20250103001100 tables', 1, '{20250103000600 tables}') then
        return;
    end if;

    -- One row. announce_after is the newest change on record when announcing began, null before that: months of history
    -- are not announced. database_id makes event ids differ between two databases that announce to the same Inngest.
    -- dispatcher_seen_at distinguishes a dispatcher that is down from one that was switched off.
    if to_regclass('priorityd.outbox') is null then
        create table priorityd.outbox (
            only_row boolean primary key default true constraint outbox_one_row check (only_row),
            database_id uuid not null default gen_random_uuid(),
            announce_after bigint,
            dispatcher_seen_at timestamptz,
            pending_after bigint not null default 0,
            -- The next mark, valid once every transaction before that one has ended.
            proposed_after bigint not null default 0,
            proposed_before xid8,
            looked_before_at timestamptz
        );
    end if;
    insert into priorityd.outbox default values on conflict (only_row) do nothing;

    -- Checked by hand: `create index if not exists` blocks writers before it checks whether the index exists.
    perform set_config('lock_timeout', '2s', true);
    if to_regclass('public.idx_repository_priority_changes_tried') is null then
        -- Rows that were claimed or returned and are still pending: there are few, and they are looked up by repository.
        create index idx_repository_priority_changes_tried
        on public.repository_priority_changes (tracked_repository_id, id)
        where dispatched_at is null and abandoned_at is null and attempts > 0;
    end if;
    if to_regclass('public.idx_repository_priority_changes_abandoned') is null then
        -- Abandoned rows, for operators.
        create index idx_repository_priority_changes_abandoned
        on public.repository_priority_changes (id) where abandoned_at is not null;
    end if;
end
$tables$;

do $functions$
begin
    if not priorityd.start_unit(
        '20250103001100 functions', 1, '{20250103000800 functions, 20250103001100 tables}', array[
            'open_priority_outbox', 'claim_priority_changes', 'mark_priority_changes_dispatched',
            'abandon_priority_changes', 'return_priority_changes', 'priority_outbox_depth'
        ]
    ) then
        return;
    end if;

    -- Starts dispatching. The very first dispatcher announces only changes from now on; so does one that starts after no
    -- dispatcher was seen for p_forget_after_days, since announcing was then switched off. After a shorter break it
    -- continues where the last one stopped. Skipped changes stay on record, not dispatched.
    create or replace function public.open_priority_outbox(p_forget_after_days integer default 7)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '2s'
    set statement_timeout = '10s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_now timestamptz := clock_timestamp();
        v_outbox priorityd.outbox;
        v_from_now_on boolean;
    begin
        perform priorityd.check_range('p_forget_after_days', p_forget_after_days, 1, 36500);
        select * into strict v_outbox from priorityd.outbox for no key update;

        v_from_now_on := v_outbox.announce_after is null
            or v_outbox.dispatcher_seen_at < v_now - make_interval(days => p_forget_after_days);
        update priorityd.outbox
        set dispatcher_seen_at = v_now,
            announce_after = case
                when v_from_now_on then coalesce((select max(c.id) from public.repository_priority_changes c), 0)
                else announce_after
            end
        where only_row
        returning * into v_outbox;

        return jsonb_build_object('database_id', v_outbox.database_id, 'from_now_on', v_from_now_on);
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Claiming
    -- ---------------------------------------------------------------------------------------------------------------

    -- Moves the low-water mark of the outbox after a scan from p_after: back if a row before it is pending again, forward
    -- if that saves the next claim more than a few rows. Only one dispatcher at a time does this.
    create or replace function priorityd.move_outbox_mark(p_after bigint)
    returns void language plpgsql as $$
    declare
        c_worth_it constant bigint := 100;
        v_outbox priorityd.outbox;
        v_seen record;
    begin
        select * into v_outbox from priorityd.outbox o where o.only_row for no key update skip locked;
        if not found or (
            p_after >= v_outbox.pending_after and v_outbox.proposed_before > pg_snapshot_xmin(pg_current_snapshot())
        ) then
            return;
        end if;
        -- In one statement: rows that it does not see belong to transactions that are still open or have not started.
        select p.id - 1 as clear_to, (select max(c.id) from public.repository_priority_changes c) as last,
            pg_snapshot_xmin(pg_current_snapshot()) as oldest_open, pg_snapshot_xmax(pg_current_snapshot()) as next
        into v_seen
        from (select) one
        left join lateral (
            select c.id from public.repository_priority_changes c
            where c.dispatched_at is null and c.abandoned_at is null and c.id > p_after
            order by c.id
            limit 1
        ) p on true;
        if v_outbox.proposed_before <= v_seen.oldest_open then
            v_outbox.pending_after := v_outbox.proposed_after;
            v_outbox.proposed_before := null;
        end if;
        v_outbox.pending_after := least(v_outbox.pending_after, v_seen.clear_to);
        if v_outbox.proposed_before is null
            and coalesce(v_seen.clear_to, v_seen.last) >= v_outbox.pending_after + c_worth_it then
            v_outbox.proposed_after := coalesce(v_seen.clear_to, v_seen.last);
            v_outbox.proposed_before := v_seen.next;
        end if;
        update priorityd.outbox o
        set pending_after = v_outbox.pending_after, proposed_after = v_outbox.proposed_after,
            proposed_before = v_outbox.proposed_before
        where o.only_row and (o.pending_after, o.proposed_before)
            is distinct from (v_outbox.pending_after, v_outbox.proposed_before);
    end
    $$;

    -- Locks the oldest pending rows after p_after that are due.
    -- A row waits while an older one of its repository is claimed or returned, so that the changes of a repository are
    -- announced in order, except if two dispatchers claim at the same instant.
    -- The cost depends on the batch and the claimed rows, not on the length of the trail or the backlog: the index of
    -- pending rows is read from its old end, and few of its rows are not due.
    create or replace function priorityd.due_changes(p_after bigint, p_now timestamptz, p_limit integer)
    returns bigint[] language plpgsql as $$
    begin
        return array(
            select c.id
            from public.repository_priority_changes c
            where c.dispatched_at is null and c.abandoned_at is null
                and c.id > p_after
                and c.next_attempt_at <= p_now
                and not exists (
                    select from public.repository_priority_changes earlier
                    where earlier.tracked_repository_id = c.tracked_repository_id
                        and earlier.id < c.id and earlier.id > p_after
                        and earlier.dispatched_at is null and earlier.abandoned_at is null and earlier.attempts > 0
                        and earlier.next_attempt_at > p_now
                )
            order by c.id
            limit p_limit
            for no key update skip locked
        );
    end
    $$;

    -- Claims the oldest pending rows that are due, for p_claim_seconds.
    create or replace function public.claim_priority_changes(
        p_daemon_id uuid,
        p_limit integer default 500,
        p_claim_seconds double precision default 60
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '2s'
    set statement_timeout = '10s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_now constant timestamptz := clock_timestamp();
        v_a_minute_ago constant timestamptz := v_now - interval '1 minute';
        v_outbox priorityd.outbox;
        v_after bigint;
        v_ids bigint[];
        v_changes jsonb[];
    begin
        perform priorityd.check_limit(p_limit);
        perform priorityd.check_daemon(p_daemon_id);
        perform priorityd.check_range('p_claim_seconds', p_claim_seconds, 1, 3600);
        select * into strict v_outbox from priorityd.outbox;
        v_after := v_outbox.announce_after;
        if v_outbox.dispatcher_seen_at >= v_a_minute_ago and v_outbox.looked_before_at >= v_a_minute_ago then
            v_after := case when v_after is not null then greatest(v_after, v_outbox.pending_after) end;
        else
            -- Another dispatcher may be writing the same.
            update priorityd.outbox o
            set dispatcher_seen_at = v_now, looked_before_at = v_now
            where o.only_row in (select true from priorityd.outbox for no key update skip locked);
        end if;

        v_ids := priorityd.due_changes(v_after, v_now, p_limit);
        with claimed as (
            update public.repository_priority_changes c
            set daemon_id = p_daemon_id,
                claimed_at = v_now,
                attempts = c.attempts + 1,
                next_attempt_at = v_now + make_interval(secs => p_claim_seconds)
            where c.id = any (v_ids)
            returning c.*
        )
        select array(
            select to_jsonb(s)
            from (
                select c.id, c.tracked_repository_id, c.repository_id, coalesce(n.name, r.name) as repository_name, c.old_priority,
                    c.new_priority, c.old_is_workspace_repo, c.is_workspace_repo, c.workspace_count, c.trigger, c.changed_at,
                    c.attempts
                from claimed c
                left join priorityd.repository_names(
                    array(select distinct k.repository_id from claimed k where k.repository_id is not null)
                ) n on n.repository_id = c.repository_id
                left join priorityd.row_names(
                    array(select distinct k.tracked_repository_id from claimed k where k.repository_id is null)
                ) r on c.repository_id is null and r.id = c.tracked_repository_id
            ) s
            order by s.id
        )
        into v_changes;
        perform priorityd.move_outbox_mark(v_after);

        return jsonb_build_object('database_id', v_outbox.database_id, 'changes', v_changes);
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Settling
    -- ---------------------------------------------------------------------------------------------------------------

    -- Marks changes as announced, even if another dispatcher has claimed them by now: they have been sent.
    create or replace function public.mark_priority_changes_dispatched(p_ids bigint[])
    returns jsonb language sql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
        with marked as (
            update public.repository_priority_changes c
            set dispatched_at = clock_timestamp(), last_error = null
            where c.id = any (p_ids) and c.dispatched_at is null
            returning 1
        )
        select jsonb_build_object('dispatched', (select count(*) from marked))
    $$;

    -- Abandons changes that will never be accepted, with the reason for each. Clear abandoned_at to have one tried again.
    create or replace function public.abandon_priority_changes(p_ids bigint[], p_reasons text[])
    returns jsonb language sql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
        with abandoned as (
            update public.repository_priority_changes c
            set abandoned_at = clock_timestamp(), last_error = r.reason
            from unnest(p_ids, p_reasons) as r (id, reason)
            where c.id = r.id and c.dispatched_at is null and c.abandoned_at is null
            returning 1
        )
        select jsonb_build_object('abandoned', (select count(*) from abandoned))
    $$;

    -- Returns changes that could not be sent for now: they are due again after the delay. Rows that another dispatcher has
    -- claimed in the meantime are left to it.
    create or replace function public.return_priority_changes(
        p_daemon_id uuid,
        p_ids bigint[],
        p_error text,
        p_delay_seconds double precision
    )
    returns jsonb language sql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
        select priorityd.check_range('p_delay_seconds', p_delay_seconds, 0, 86400);
        with returned as (
            update public.repository_priority_changes c
            set daemon_id = null,
                claimed_at = null,
                next_attempt_at = clock_timestamp() + make_interval(secs => p_delay_seconds),
                last_error = coalesce(p_error, c.last_error)
            where c.id = any (p_ids) and c.daemon_id = p_daemon_id
                and c.dispatched_at is null and c.abandoned_at is null
            returning 1
        )
        select jsonb_build_object('returned', (select count(*) from returned))
    $$;

    -- How many rows are pending, and for how long; none before announcing began. Reads the index of pending rows.
    create or replace function public.priority_outbox_depth()
    returns jsonb language sql stable
    set search_path = public, extensions
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    -- The planner's statistics miss a backlog that comes and goes within minutes.
    set enable_seqscan = off
    set enable_bitmapscan = off
    as $$
        select jsonb_build_object(
            'pending', p.pending,
            'oldest_seconds', coalesce(
                (
                    select greatest(extract(epoch from clock_timestamp() - c.changed_at), 0)
                    from public.repository_priority_changes c
                    where c.id = p.oldest
                ),
                0
            ),
            'abandoned', (
                select count(*) from public.repository_priority_changes c where c.abandoned_at is not null
            )
        )
        from priorityd.outbox o
        cross join lateral (
            select count(*) as pending, min(c.id) as oldest from public.repository_priority_changes c
            where c.dispatched_at is null and c.abandoned_at is null
                and o.announce_after is not null and c.id > greatest(o.announce_after, o.pending_after)
        ) p
    $$;

    perform priorityd.grant_access();
end
$functions$;
