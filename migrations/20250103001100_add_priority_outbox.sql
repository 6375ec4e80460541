-- The outbox: handing the recorded changes to the dispatchers, and trimming the record. May be left out.
--
-- A row of repository_priority_changes is *pending* while it waits to be announced: younger than the moment at
-- which announcing began, and neither dispatched nor abandoned. A dispatcher claims pending rows, sends them, and
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

    -- One row. announce_after is the newest change on record when announcing began, null before: months of history are
    -- not announced. database_id makes event ids differ between two databases that announce to the same place.
    -- dispatcher_seen_at tells a dispatcher that is down from one that was switched off.
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
        -- Rows that were claimed or put back and are still pending: few, and looked up by repository.
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
            'abandon_priority_changes', 'return_priority_changes', 'priority_outbox_depth', 'trim_priority_changes'
        ]
    ) then
        return;
    end if;

    -- A dispatcher starts. The very first one starts with changes from now on; so does one when none was seen for
    -- p_forget_after_days, since announcing was switched off meanwhile. After a shorter break it continues where the last
    -- one stopped. Skipped changes stay on record, not dispatched.
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

        return jsonb_build_object(
            'database_id', v_outbox.database_id,
            'announce_after', v_outbox.announce_after,
            'from_now_on', v_from_now_on
        );
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Claiming
    -- ---------------------------------------------------------------------------------------------------------------

    -- Moves the low-water mark of the outbox after a scan from p_after: back if a row before it is pending again, forward
    -- if that saves the next claim more than a few rows. Only one of several dispatchers does it.
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
        -- In one statement: rows that it does not see were written by a transaction still open, or not yet started.
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

    -- Claims the oldest pending rows that are not claimed, for p_claim_seconds.
    -- A row whose repository has an older one claimed or put back waits for it, so that the changes of a repository are
    -- announced in order; except if two dispatchers claim at the same instant.
    -- The cost depends on the batch and the claimed rows, not on the length of the trail or the backlog: the index of
    -- pending rows is read from its old end, and few of its rows are not due.
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
        v_now timestamptz := clock_timestamp();
        v_outbox priorityd.outbox;
        v_after bigint;
        v_changes jsonb;
    begin
        perform priorityd.check_limit(p_limit);
        perform priorityd.check_daemon(p_daemon_id);
        perform priorityd.check_range('p_claim_seconds', p_claim_seconds, 1, 3600);
        select * into strict v_outbox from priorityd.outbox;
        -- Once a minute is enough; another dispatcher may be writing the same.
        if v_outbox.dispatcher_seen_at is null or v_outbox.dispatcher_seen_at < v_now - interval '1 minute' then
            update priorityd.outbox o
            set dispatcher_seen_at = v_now
            where o.only_row in (select true from priorityd.outbox for no key update skip locked);
        end if;
        v_after := case
            when v_outbox.announce_after is not null then greatest(v_outbox.announce_after, v_outbox.pending_after)
        end;
        if v_outbox.looked_before_at is null or v_outbox.looked_before_at < v_now - interval '1 minute' then
            v_after := v_outbox.announce_after;
            update priorityd.outbox o
            set looked_before_at = v_now
            where o.only_row in (select true from priorityd.outbox for no key update skip locked);
        end if;

        with due as (
            select c.id
            from public.repository_priority_changes c
            where c.dispatched_at is null and c.abandoned_at is null
                and c.id > v_after
                and c.next_attempt_at <= v_now
                and not exists (
                    select from public.repository_priority_changes earlier
                    where earlier.tracked_repository_id = c.tracked_repository_id
                        and earlier.id < c.id and earlier.id > v_after
                        and earlier.dispatched_at is null and earlier.abandoned_at is null and earlier.attempts > 0
                        and earlier.next_attempt_at > v_now
                )
            order by c.id
            limit p_limit
            for no key update skip locked
        ),
        claimed as (
            update public.repository_priority_changes c
            set daemon_id = p_daemon_id,
                claimed_at = v_now,
                attempts = c.attempts + 1,
                next_attempt_at = v_now + make_interval(secs => p_claim_seconds)
            from due
            where c.id = due.id
            returning c.*
        )
        select coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'id', c.id,
                    'tracked_repository_id', c.tracked_repository_id,
                    'repository_id', c.repository_id,
                    'repository_name', coalesce(n.name, r.name),
                    'old_priority', c.old_priority,
                    'new_priority', c.new_priority,
                    'old_is_workspace_repo', c.old_is_workspace_repo,
                    'is_workspace_repo', c.is_workspace_repo,
                    'workspace_count', c.workspace_count,
                    'trigger', c.trigger,
                    'changed_at', c.changed_at,
                    'attempts', c.attempts
                )
                order by c.id
            ),
            '[]'
        )
        into v_changes
        from claimed c
        left join priorityd.repository_names(
            array(select distinct k.repository_id from claimed k where k.repository_id is not null)
        ) n on n.repository_id = c.repository_id
        left join priorityd.row_names(
            array(select distinct k.tracked_repository_id from claimed k where k.repository_id is null)
        ) r on c.repository_id is null and r.id = c.tracked_repository_id;
        perform priorityd.move_outbox_mark(v_after);

        return jsonb_build_object('database_id', v_outbox.database_id, 'changes', v_changes);
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Settling
    -- ---------------------------------------------------------------------------------------------------------------

    -- These are announced, even if another dispatcher has claimed them by now: what was sent was sent.
    create or replace function public.mark_priority_changes_dispatched(p_ids bigint[])
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_count integer;
    begin
        update public.repository_priority_changes c
        set dispatched_at = clock_timestamp(), last_error = null
        where c.id = any (p_ids) and c.dispatched_at is null;
        get diagnostics v_count = row_count;
        return jsonb_build_object('dispatched', v_count);
    end
    $$;

    -- These will never be accepted; each keeps its reason. Clear abandoned_at to have one tried again.
    create or replace function public.abandon_priority_changes(p_ids bigint[], p_reasons text[])
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_count integer;
    begin
        update public.repository_priority_changes c
        set abandoned_at = clock_timestamp(), last_error = r.reason
        from unnest(p_ids, p_reasons) as r (id, reason)
        where c.id = r.id and c.dispatched_at is null and c.abandoned_at is null;
        get diagnostics v_count = row_count;
        return jsonb_build_object('abandoned', v_count);
    end
    $$;

    -- These could not be sent for now: they are due again after the delay. Rows claimed by another dispatcher meanwhile
    -- are left to it.
    create or replace function public.return_priority_changes(
        p_daemon_id uuid,
        p_ids bigint[],
        p_error text,
        p_delay_seconds double precision
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '5s'
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_count integer;
    begin
        perform priorityd.check_range('p_delay_seconds', p_delay_seconds, 0, 86400);
        update public.repository_priority_changes c
        set daemon_id = null,
            claimed_at = null,
            next_attempt_at = clock_timestamp() + make_interval(secs => p_delay_seconds),
            last_error = coalesce(p_error, c.last_error)
        where c.id = any (p_ids) and c.daemon_id = p_daemon_id
            and c.dispatched_at is null and c.abandoned_at is null;
        get diagnostics v_count = row_count;
        return jsonb_build_object('returned', v_count);
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Looking and trimming
    -- ---------------------------------------------------------------------------------------------------------------

    -- How many rows wait, and for how long. None do before announcing began. Counts the index of pending rows.
    create or replace function public.priority_outbox_depth()
    returns jsonb language sql stable
    set search_path = public, extensions
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    -- Statistics know nothing of a backlog that comes and goes within minutes.
    set enable_seqscan = off
    set enable_bitmapscan = off
    as $$
        select jsonb_build_object(
            'pending', (
                select count(*) from public.repository_priority_changes c
                where c.dispatched_at is null and c.abandoned_at is null
                    and o.announce_after is not null and c.id > greatest(o.announce_after, o.pending_after)
            ),
            'oldest_seconds', coalesce(
                (
                    select greatest(extract(epoch from clock_timestamp() - c.changed_at), 0)
                    from public.repository_priority_changes c
                    where c.dispatched_at is null and c.abandoned_at is null
                        and o.announce_after is not null and c.id > greatest(o.announce_after, o.pending_after)
                    order by c.id
                    limit 1
                ),
                0
            ),
            'abandoned', (
                select count(*) from public.repository_priority_changes c where c.abandoned_at is not null
            ),
            'dispatcher_seen_at', o.dispatcher_seen_at
        )
        from priorityd.outbox o;
    $$;

    -- Deletes rows older than p_keep_days, looking at p_limit rows after the key p_after, the oldest first. Pending rows
    -- stay however old they are. next_after is the key to continue from, null when the following rows are recent, so the
    -- cost is that of the rows looked at.
    create or replace function public.trim_priority_changes(
        p_keep_days integer default 90,
        p_after bigint default 0,
        p_limit integer default 5000
    )
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '2s'
    set statement_timeout = '20s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_before timestamptz;
        v_announce_after bigint := (select announce_after from priorityd.outbox);
        v_looked_at integer;
        v_last bigint;
        v_last_is_old boolean;
        v_trimmed integer;
    begin
        perform priorityd.check_limit(p_limit);
        perform priorityd.check_range('p_keep_days', p_keep_days, 1, 36500);
        if p_after is null then
            raise exception 'p_after is null, but must be a key' using errcode = 'invalid_parameter_value';
        end if;
        v_before := clock_timestamp() - make_interval(days => p_keep_days);

        select count(*), max(page.id), (array_agg(page.changed_at < v_before order by page.id desc))[1]
        into v_looked_at, v_last, v_last_is_old
        from (
            select c.id, c.changed_at from public.repository_priority_changes c
            where c.id > p_after
            order by c.id
            limit p_limit
        ) page;

        delete from public.repository_priority_changes c
        where c.id > p_after and c.id <= v_last
            and c.changed_at < v_before
            and (
                c.dispatched_at is not null or c.abandoned_at is not null
                or v_announce_after is null or c.id <= v_announce_after
            );
        get diagnostics v_trimmed = row_count;
        return jsonb_build_object(
            'trimmed', v_trimmed,
            'next_after', case when v_looked_at = p_limit and v_last_is_old then v_last end
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
