-- A role of the daemon's own, to be used instead of service_role: it may call the daemon's functions, read what they
-- read, and write nothing of the application's but four columns of tracked_repositories and, in background_jobs, the
-- jobs that wait in order.
--
-- To be run by the owner of the application's tables, after the migrations and again after each new one (psql, or the
-- SQL editor). Safe to apply again. deploy/README.md says how its token is made; its undo is drop_restricted_role.sql.

do $$
begin
    if not exists (select from pg_roles where rolname = 'priorityd') then
        -- Neither does it log in, nor does it see past row level security: the policies below name what it sees.
        create role priorityd nologin noinherit nobypassrls;
    end if;
end
$$;

-- PostgREST logs in as authenticator and becomes the role that a token names. Realtime's own login may become any.
grant priorityd to authenticator;

do $$
declare
    c_functions constant text[] := array[
        'abandon_priority_changes', 'advance_job_lane', 'apply_workspace_priorities', 'background_job_priority',
        'beat_workspace_priorities', 'cancel_ordered_jobs', 'check_job_lanes', 'check_job_type',
        'check_workspace_priorities', 'check_workspace_priority_arguments', 'choose_job_priority',
        'claim_priority_changes', 'count_ordered_jobs', 'count_untracked_repositories',
        'count_waiting_background_jobs', 'current_job_priority', 'decide_workspace_priorities',
        'explain_background_jobs', 'explain_refused_job', 'explain_repository_priority', 'fail_refused_jobs',
        'find_background_job_inversions', 'find_mismatched_repositories', 'find_mismatched_repositories_between',
        'follow_job_hints',
        'get_repository_priorities', 'get_workspace_repository_ids', 'hint_at_job_lanes',
        'hold_workspace_priority_lease', 'job_priority', 'list_ordered_jobs', 'lock_and_write_workspace_priorities',
        'lock_tracked_repositories', 'mark_jobs_sent', 'mark_priority_changes_dispatched', 'memberships_add_up',
        'mend_job_lane', 'name_of_tracked_repository', 'open_priority_outbox', 'place_job_lanes', 'poll_background_jobs', 'priority_outbox_depth',
        'queue_repository_jobs',
        'read_finished_background_jobs', 'release_next_job', 'release_ordered_jobs',
        'release_workspace_priority_lease', 'repositories_unknown_to_jobs', 'resync_workspace_priorities_page',
        'return_priority_changes', 'return_unsent_jobs', 'rollback_workspace_priorities', 'set_manual_priority',
        'settle_ordered_jobs', 'sweep_workspace_priorities', 'sync_workspace_priorities', 'trim_priority_changes',
        'workspace_priority_schema_version', 'workspace_priority_snapshot', 'workspaces_in_line',
        'write_workspace_priorities'
    ];
    -- What the application owns, and what of it the daemon may do. Not its columns alone: functions take rows as
    -- they are, whatever columns the application has given them. The last is for the job metrics and for ordered jobs.
    c_read constant text[] := array['tracked_repositories', 'workspace_repositories', 'background_jobs'];
    c_own constant text[] := array[
        'repository_priority_changes', 'workspace_priority_heartbeats', 'workspace_priority_job_cursor',
        'workspace_priority_job_hints', 'workspace_priority_job_lanes', 'workspace_priority_job_queue',
        'workspace_priority_job_turns', 'workspace_priority_job_types', 'workspace_priority_leases',
        'workspace_priority_ordered_jobs', 'workspace_priority_outbox'
    ];
    v_function regprocedure;
    v_table text;
begin
    grant usage on schema public to priorityd;
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.proname = any (c_functions)
    loop
        execute format('grant execute on function %s to priorityd', v_function);
    end loop;

    foreach v_table in array c_read || c_own || array['workspace_priority_migrations'] loop
        continue when to_regclass(format('public.%I', v_table)) is null;
        execute format('grant select on public.%I to priorityd', v_table);
        -- A table whose row level security is off takes no notice of it. Where it is on, a role without a policy sees
        -- an empty table, and to the daemon that would mean: no repository is in a workspace.
        execute format('drop policy if exists priorityd_sees on public.%I', v_table);
        execute format('create policy priorityd_sees on public.%I for select to priorityd using (true)', v_table);
    end loop;

    grant update (priority, is_workspace_repo, workspace_count, manual_priority)
    on public.tracked_repositories to priorityd;
    drop policy if exists priorityd_writes on public.tracked_repositories;
    create policy priorityd_writes on public.tracked_repositories
    for update to priorityd using (true) with check (true);

    foreach v_table in array c_own loop
        continue when to_regclass(format('public.%I', v_table)) is null;
        execute format('grant insert, update, delete on public.%I to priorityd', v_table);
        execute format('drop policy if exists priorityd_writes on public.%I', v_table);
        execute format(
            'create policy priorityd_writes on public.%I for all to priorityd using (true) with check (true)', v_table);
    end loop;
end
$$;

-- Ordered jobs: queueing, releasing and cancelling them. `error` is not in every application's table.
do $$
declare
    v_columns text;
begin
    if to_regclass('public.background_jobs') is null then
        return;
    end if;
    select string_agg(a.attname, ', ') into v_columns from pg_attribute a
    where a.attrelid = 'public.background_jobs'::regclass and not a.attisdropped
        and a.attname in ('payload', 'status', 'completed_at', 'failed_at', 'error');
    execute format('grant update (%s) on public.background_jobs to priorityd', v_columns);
    grant insert (id, type, payload, status, repository_id, created_at) on public.background_jobs to priorityd;
    drop policy if exists priorityd_queues on public.background_jobs;
    create policy priorityd_queues on public.background_jobs for insert to priorityd with check (true);
    drop policy if exists priorityd_writes on public.background_jobs;
    create policy priorityd_writes on public.background_jobs
    for update to priorityd using (true) with check (true);
end
$$;
