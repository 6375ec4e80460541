-- What others ask of workspace priorities: job queueing, explanations, dashboards, and the daemon about itself
-- and the database. All of them answer with one jsonb: PostgREST cuts sets of rows at 1,000.
-- Safe to apply again.

insert into public.workspace_priority_migrations (version, name)
values ('20250103000300', '20250103000300_add_workspace_priority_reports.sql')
on conflict (version) do nothing;

-- ---------------------------------------------------------------------------------------------------------
-- Reading
-- ---------------------------------------------------------------------------------------------------------

-- What job queueing needs to know. Untracked repositories are absent.
create or replace function public.get_repository_priorities(p_repository_ids uuid[])
returns jsonb
language sql
stable
set search_path = ''
set statement_timeout = '10s'
as $$
    select coalesce(
        jsonb_object_agg(
            tr.repository_id,
            jsonb_build_object(
                'priority', tr.priority,
                'is_workspace_repo', tr.is_workspace_repo,
                'workspace_count', tr.workspace_count
            )
        ),
        '{}'
    )
    from public.tracked_repositories tr
    where tr.repository_id = any (p_repository_ids);
$$;

-- The distinct repositories that are in a workspace, a page at a time.
create or replace function public.get_workspace_repository_ids(p_after uuid default null, p_limit integer default 10000)
returns jsonb
language plpgsql
stable
set search_path = ''
set statement_timeout = '30s'
as $$
declare
    v_ids uuid[];
begin
    perform public.check_workspace_priority_arguments(p_limit => p_limit);
    v_ids := array(
        select distinct wr.repository_id from public.workspace_repositories wr
        where wr.repository_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
            or (p_after is null and wr.repository_id = '00000000-0000-0000-0000-000000000000')
        order by wr.repository_id
        limit p_limit + 1
    );
    return jsonb_build_object(
        'repository_ids', to_jsonb(v_ids[:p_limit]),
        'next_after', case when cardinality(v_ids) > p_limit then v_ids[p_limit] end
    );
end
$$;

-- Everything that explains why a repository has the priority that it has.
create or replace function public.explain_repository_priority(p_repository_id uuid)
returns jsonb
language plpgsql
stable
set search_path = ''
set statement_timeout = '10s'
as $$
declare
    v_tracked public.tracked_repositories;
    v_workspaces jsonb;
    v_names jsonb := '{}';
    v_count integer;
    v_expected jsonb;
    v_correct boolean := true;
begin
    select tr.* into v_tracked from public.tracked_repositories tr
    where tr.repository_id = p_repository_id
    order by tr.id
    limit 1;

    -- Columns that an application may not have are read through jsonb, where a missing one is null.
    select count(distinct wr.workspace_id),
        coalesce(
            jsonb_agg(
                jsonb_strip_nulls(
                    jsonb_build_object('id', wr.workspace_id, 'added_at', to_jsonb(wr) -> 'added_at')
                )
                order by to_jsonb(wr) ->> 'added_at', wr.workspace_id
            ),
            '[]'
        )
    into v_count, v_workspaces
    from public.workspace_repositories wr
    where wr.repository_id = p_repository_id;

    if v_tracked.id is null and v_count = 0 then
        raise exception 'repository % is neither tracked nor in a workspace', p_repository_id
            using errcode = 'PT404', hint = 'The id of a repository is what tracked_repositories.repository_id holds.';
    end if;

    if to_regclass('public.workspaces') is not null
        and has_table_privilege('public.workspaces', 'select') then
        select coalesce(
            jsonb_object_agg(w.id, jsonb_build_object('name', to_jsonb(w) ->> 'name'))
            filter (where to_jsonb(w) ->> 'name' is not null),
            '{}'
        )
        into v_names
        from public.workspaces w
        join public.workspace_repositories wr on wr.workspace_id = w.id
        where wr.repository_id = p_repository_id;
    end if;

    if v_tracked.id is not null then
        select jsonb_build_object(
                'priority', d.new_priority,
                'is_workspace_repo', d.is_workspace_repo,
                'workspace_count', d.workspace_count
            ),
            not d.wrong
        into v_expected, v_correct
        from public.decide_workspace_priorities(array[v_tracked.id]) d;
    else
        v_expected := jsonb_build_object('priority', 'high', 'is_workspace_repo', true, 'workspace_count', v_count);
    end if;

    return jsonb_build_object(
        'repository_id', p_repository_id,
        'tracked', case
            when v_tracked.id is not null then jsonb_build_object(
                'id', v_tracked.id,
                'priority', v_tracked.priority,
                'is_workspace_repo', v_tracked.is_workspace_repo,
                'workspace_count', v_tracked.workspace_count,
                'manual_priority', v_tracked.manual_priority,
                'tracking_enabled', v_tracked.tracking_enabled
            )
        end,
        'workspaces', (
            select coalesce(jsonb_agg(w.value || coalesce(v_names -> (w.value ->> 'id'), '{}') order by w.ordinality), '[]')
            from jsonb_array_elements(v_workspaces) with ordinality w
        ),
        'expected', v_expected,
        'correct', v_correct,
        'last_changes', (
            select coalesce(jsonb_agg(to_jsonb(c) order by c.id desc), '[]')
            from (
                select ch.id, ch.old_priority, ch.new_priority, ch.old_is_workspace_repo, ch.is_workspace_repo,
                    ch.workspace_count, ch.trigger, ch.changed_at, ch.dispatched_at
                from public.repository_priority_changes ch
                where ch.repository_id = p_repository_id
                order by ch.id desc
                limit 10
            ) c
        )
    );
end
$$;

-- The newest of these migrations that is applied, as its timestamp.
create or replace function public.workspace_priority_schema_version()
returns jsonb
language sql
stable
set search_path = ''
as $$
    select to_jsonb(max(m.version)) from public.workspace_priority_migrations m;
$$;

-- Numbers for the dashboards. Cheap on a large table: the counts come from one index-only scan of
-- idx_tracked_repos_workspace_priority (some 100 ms for a million rows), inversions from the same counts, the
-- untracked from the sweep's comparison of two indexes, and the outbox from the index of its pending rows.
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

-- ---------------------------------------------------------------------------------------------------------
-- For the daemon itself
-- ---------------------------------------------------------------------------------------------------------

-- A sign of life that comes back through the change stream. Rows of daemons that are gone are cleared away.
create or replace function public.beat_workspace_priorities(p_daemon_id uuid)
returns jsonb
language plpgsql
set search_path = ''
set lock_timeout = '1s'
set statement_timeout = '5s'
as $$
declare
    v_beat_at timestamptz := clock_timestamp();
begin
    if p_daemon_id is null then
        raise exception 'p_daemon_id is null, but must be the id of a daemon'
            using errcode = 'invalid_parameter_value';
    end if;
    insert into public.workspace_priority_heartbeats (daemon_id, beat_at)
    values (p_daemon_id, v_beat_at)
    on conflict (daemon_id) do update set beat_at = excluded.beat_at;

    -- Two daemons may clear at the same time: neither waits for the other.
    delete from public.workspace_priority_heartbeats h
    where h.daemon_id in (
        select old.daemon_id from public.workspace_priority_heartbeats old
        where old.beat_at < v_beat_at - interval '1 day'
        for update skip locked
    );
    return jsonb_build_object('beat_at', v_beat_at);
end
$$;

-- What the database looks like to the daemon: for `priorityd check`, and to choose how to follow changes.
create or replace function public.check_workspace_priorities()
returns jsonb
language plpgsql
stable
set search_path = ''
set statement_timeout = '10s'
as $$
declare
    c_published constant text[] := array[
        'workspace_repositories', 'tracked_repositories', 'workspace_priority_heartbeats'
    ];
    v_published text[];
    v_relation oid := to_regclass('public.workspace_repositories');
    v_row_level_security boolean;
    v_replica_identity text;
    v_primary_key text[];
    v_identity_columns text[];
begin
    v_published := array(
        select p.tablename::text from pg_catalog.pg_publication_tables p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = any (c_published)
        order by p.tablename
    );
    select c.relrowsecurity,
        case c.relreplident when 'd' then 'default' when 'f' then 'full' when 'n' then 'nothing' when 'i' then 'index' end
    into v_row_level_security, v_replica_identity
    from pg_catalog.pg_class c
    where c.oid = v_relation;

    select
        coalesce(array_agg(a.attname::text order by k.position) filter (where i.indisprimary), '{}'),
        coalesce(array_agg(a.attname::text) filter (where i.indisreplident), '{}')
    into v_primary_key, v_identity_columns
    from pg_catalog.pg_index i
    cross join lateral unnest(i.indkey::smallint[]) with ordinality k (attnum, position)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = v_relation and k.position <= i.indnkeyatts;

    return jsonb_build_object(
        'role', current_user,
        'server_version', current_setting('server_version'),
        'schema_version', public.workspace_priority_schema_version(),
        'migrations', (
            select coalesce(jsonb_agg(m.name order by m.version), '[]')
            from public.workspace_priority_migrations m
        ),
        'publication', jsonb_build_object(
            'exists', exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime'),
            'tables', to_jsonb(v_published),
            'missing', (
                select coalesce(jsonb_agg(t.name order by t.name), '[]')
                from unnest(c_published) t (name)
                where t.name <> all (v_published)
            )
        ),
        'workspace_repositories', jsonb_build_object(
            'exists', v_relation is not null,
            'row_level_security', v_row_level_security,
            'replica_identity', v_replica_identity,
            'primary_key', to_jsonb(v_primary_key),
            -- Whether the change stream's DELETE tells which repository it was. With row level security on it
            -- carries the columns of the primary key only, whatever the replica identity is.
            'delete_names_repository', coalesce(
                case
                    when v_replica_identity = 'nothing' then false
                    when v_replica_identity = 'full' and not v_row_level_security then true
                    when v_replica_identity = 'index' then
                        'repository_id' = any (v_identity_columns)
                        and (not v_row_level_security or 'repository_id' = any (v_primary_key))
                    else 'repository_id' = any (v_primary_key)
                end,
                false
            )
        ),
        'background_jobs', to_regclass('public.background_jobs') is not null
    );
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Privileges: service_role only
-- ---------------------------------------------------------------------------------------------------------

-- The owner keeps his own right. Roles are those that exist: plain PostgreSQL has none of Supabase's.
do $$
declare
    v_function regprocedure;
    v_role text;
begin
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.proname in (
            'beat_workspace_priorities', 'check_workspace_priorities', 'explain_repository_priority',
            'get_repository_priorities', 'get_workspace_repository_ids', 'workspace_priority_schema_version',
            'workspace_priority_snapshot'
        )
    loop
        execute format('revoke all on function %s from public', v_function);
        for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
            execute format('revoke all on function %s from %I', v_function, v_role);
        end loop;
        if exists (select from pg_roles where rolname = 'service_role') then
            execute format('grant execute on function %s to service_role', v_function);
        end if;
    end loop;
end
$$;

-- PostgREST serves new functions only after it has been told to read the schema again.
notify pgrst, 'reload schema';
