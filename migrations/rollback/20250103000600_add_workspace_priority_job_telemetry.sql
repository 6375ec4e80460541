-- Undoes 20250103000600_add_workspace_priority_job_telemetry.sql. Stop the daemon before. Indexes that were
-- created by hand stay.

do $$
declare
    v_created text[];
    v_name text;
begin
    if to_regclass('public.workspace_priority_migrations') is null then
        return;
    end if;
    perform set_config('lock_timeout', '15s', true);
    delete from public.workspace_priority_migrations where version = '20250103000600' returning created into v_created;
    for v_name in select substr(c, 7) from unnest(v_created) as u (c) where c like 'index %' loop
        execute format('drop index if exists public.%I', v_name);
    end loop;
end
$$;

drop function if exists public.poll_background_jobs(uuid, bigint, integer, double precision);
drop function if exists public.read_finished_background_jobs(timestamptz, uuid, timestamptz, uuid);
drop function if exists public.count_waiting_background_jobs();
drop function if exists public.find_background_job_inversions(timestamptz, timestamptz, integer);
drop function if exists public.explain_background_jobs();
drop function if exists public.background_job_priority(jsonb, text);
drop table if exists public.workspace_priority_job_cursor;

notify pgrst, 'reload schema';
