-- The outbox: handing the changes on record to whoever announces them, and trimming the record. May be left out.
--
-- A row of repository_priority_changes is *pending* while it waits to be announced: younger than the moment at
-- which announcing began, and neither dispatched nor abandoned. A dispatcher claims pending rows, sends them, and
-- marks them. A claim is a next_attempt_at in the future: that of a dispatcher that died runs out by itself, and
-- a row may then be sent again, under the same id.

do $tables$
begin
    if not priorityd.start_unit('20250103000800 tables', 1, '{20250103000500 tables}') then
        return;
    end if;

    -- One row. announce_after is the newest change that was on record when announcing began, null before it ever
    -- did: months of history are not news. database_id makes ids of events differ between two databases that
    -- announce to the same place. dispatcher_seen_at tells a dispatcher that is down from one that was switched off.
    if to_regclass('priorityd.outbox') is null then
        create table priorityd.outbox (
            only_row boolean primary key default true constraint outbox_one_row check (only_row),
            database_id uuid not null default gen_random_uuid(),
            announce_after bigint,
            dispatcher_seen_at timestamptz
        );
    end if;
    insert into priorityd.outbox default values on conflict (only_row) do nothing;

    -- Asked for by hand: `create index if not exists` makes writers wait before it looks whether the index is there.
    perform set_config('lock_timeout', '2s', true);
    if to_regclass('public.idx_repository_priority_changes_tried') is null then
        -- Rows that were claimed or put back and are still pending: few, and asked for by repository.
        create index idx_repository_priority_changes_tried
        on public.repository_priority_changes (tracked_repository_id, id)
        where dispatched_at is null and abandoned_at is null and attempts > 0;
    end if;
    if to_regclass('public.idx_repository_priority_changes_abandoned') is null then
        -- What was given up, for those who look for it.
        create index idx_repository_priority_changes_abandoned
        on public.repository_priority_changes (id) where abandoned_at is not null;
    end if;
end
$tables$;

do $functions$
begin
    if not priorityd.start_unit(
        '20250103000800 functions', 1, '{20250103000600 functions, 20250103000800 tables}', array[
            'open_priority_outbox', 'claim_priority_changes', 'mark_priority_changes_dispatched',
            'abandon_priority_changes', 'return_priority_changes', 'priority_outbox_depth', 'trim_priority_changes'
        ]
    ) then
        return;
    end if;

    -- A dispatcher begins. The first one ever begins from now on; so does one that comes when none was seen for
    -- p_forget_after_days, for then announcing was switched off meanwhile. After a shorter break it goes on where the
    -- last one stopped. Changes that are skipped stay on record, not dispatched.
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
        if p_forget_after_days is null or p_forget_after_days < 1 then
            raise exception 'p_forget_after_days is %, but must be at least 1', coalesce(p_forget_after_days::text, 'null')
                using errcode = 'invalid_parameter_value';
        end if;
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

    -- The oldest pending rows that nobody else is busy with. They are this dispatcher's for p_claim_seconds.
    -- A row whose repository has an older one claimed or put back waits for it, so that the changes of a repository
    -- are announced in order; except for two dispatchers that claim in the same instant.
    -- Costs the batch and what is under way, however long the trail and the backlog are: the index of pending rows
    -- is read from its old end, and few of its rows are not due.
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
        v_changes jsonb;
    begin
        perform priorityd.check_limit(p_limit);
        if p_daemon_id is null or p_claim_seconds is null or p_claim_seconds not between 1 and 3600 then
            raise exception 'p_daemon_id must be an id, and p_claim_seconds between 1 and 3600'
                using errcode = 'invalid_parameter_value';
        end if;
        select * into strict v_outbox from priorityd.outbox;
        -- Once a minute is enough to be seen; another dispatcher may be writing the same.
        if v_outbox.dispatcher_seen_at is null or v_outbox.dispatcher_seen_at < v_now - interval '1 minute' then
            update priorityd.outbox o
            set dispatcher_seen_at = v_now
            where o.only_row in (select true from priorityd.outbox for no key update skip locked);
        end if;

        with due as (
            select c.id
            from public.repository_priority_changes c
            where c.dispatched_at is null and c.abandoned_at is null
                and c.id > v_outbox.announce_after
                and c.next_attempt_at <= v_now
                and not exists (
                    select from public.repository_priority_changes earlier
                    where earlier.tracked_repository_id = c.tracked_repository_id
                        and earlier.id < c.id and earlier.id > v_outbox.announce_after
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
                    'repository_name', n.name,
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
        ) n on n.repository_id = c.repository_id;

        return jsonb_build_object('database_id', v_outbox.database_id, 'changes', v_changes);
    end
    $$;

    -- ---------------------------------------------------------------------------------------------------------------
    -- Settling
    -- ---------------------------------------------------------------------------------------------------------------

    -- These are announced. Whoever holds a claim by now: what was sent was sent.
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

    -- These could not be sent for now: they are due again after the delay. Rows that another dispatcher has claimed
    -- meanwhile are its own.
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
        if p_delay_seconds is null or p_delay_seconds not between 0 and 86400 then
            raise exception 'p_delay_seconds is %, but must be between 0 and 86400', coalesce(p_delay_seconds::text, 'null')
                using errcode = 'invalid_parameter_value';
        end if;
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

    -- How much waits, and for how long. Nothing does before announcing began. Counts the index of pending rows.
    create or replace function public.priority_outbox_depth()
    returns jsonb language sql stable
    set search_path = public, extensions
    set statement_timeout = '15s'
    set default_transaction_isolation = 'read committed'
    as $$
        select jsonb_build_object(
            'pending', (
                select count(*) from public.repository_priority_changes c
                where c.dispatched_at is null and c.abandoned_at is null and c.id > o.announce_after
            ),
            'oldest_seconds', coalesce(
                (
                    select greatest(extract(epoch from clock_timestamp() - c.changed_at), 0)
                    from public.repository_priority_changes c
                    where c.dispatched_at is null and c.abandoned_at is null and c.id > o.announce_after
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

    -- Takes what is older than p_keep_days off the record, looking at p_limit rows after the key p_after, the oldest
    -- first. Pending rows stay however old they are. next_after is the key to go on from, null when the rows that
    -- follow are young, so the cost is that of the rows looked at.
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
        if p_keep_days is null or p_keep_days < 1 then
            raise exception 'p_keep_days is %, but must be at least 1', coalesce(p_keep_days::text, 'null')
                using errcode = 'invalid_parameter_value';
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
