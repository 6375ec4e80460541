-- Undoes 20250103000700_add_workspace_priority_ordered_jobs.sql. Stop the daemon before. Jobs that were queued in order
-- and still wait stay in background_jobs as queued, and nobody releases them any more. The table itself goes only if
-- the migration made it and it is empty.

do $$
begin
    perform set_config('lock_timeout', '15s', true);
end
$$;

do $$
begin
    if to_regclass('public.repository_priority_changes') is not null then
        drop trigger if exists hint_at_job_lanes on public.repository_priority_changes;
    end if;
end
$$;

drop function if exists public.count_ordered_jobs();
drop function if exists public.list_ordered_jobs(text, uuid, integer);
drop function if exists public.cancel_ordered_jobs(uuid[], uuid, text);
drop function if exists public.queue_repository_jobs(jsonb, text);
drop function if exists public.repositories_unknown_to_jobs(uuid[]);
drop function if exists public.explain_refused_job(jsonb);
drop function if exists public.check_job_type(text);
drop function if exists public.check_job_lanes(integer);
drop function if exists public.fail_refused_jobs(uuid[], text[]);
drop function if exists public.return_unsent_jobs(uuid, uuid[]);
drop function if exists public.mark_jobs_sent(uuid[], double precision);
drop function if exists public.release_ordered_jobs(
    uuid, integer, integer, double precision, double precision, double precision
);
drop function if exists public.release_next_job(
    text, bigint, boolean, uuid, double precision, double precision, double precision
);
drop function if exists public.advance_job_lane(text, uuid);
drop function if exists public.settle_ordered_jobs(uuid);
drop function if exists public.follow_job_hints(integer);
drop function if exists public.place_job_lanes(text[], uuid[]);
drop function if exists public.workspaces_in_line(uuid);
drop function if exists public.current_job_priority(uuid);
drop function if exists public.job_priority(text, boolean);
drop function if exists public.hint_at_job_lanes();
drop function if exists public.choose_job_priority(
    boolean, double precision, double precision, boolean, double precision
);

drop table if exists public.workspace_priority_job_hints;
drop table if exists public.workspace_priority_job_turns;
drop table if exists public.workspace_priority_job_lanes;
drop table if exists public.workspace_priority_ordered_jobs;
drop table if exists public.workspace_priority_job_types;
drop table if exists public.workspace_priority_job_queue;

do $$
declare
    v_created text[];
    v_jobs boolean;
begin
    if to_regclass('public.workspace_priority_migrations') is null then
        return;
    end if;
    delete from public.workspace_priority_migrations where version = '20250103000700' returning created into v_created;
    if 'table background_jobs' = any (v_created) and to_regclass('public.background_jobs') is not null then
        execute 'select exists (select from public.background_jobs)' into v_jobs;
        if v_jobs then
            raise notice 'background_jobs stays, because there are jobs in it';
        else
            drop table public.background_jobs;
        end if;
    end if;
end
$$;

notify pgrst, 'reload schema';
