-- Removes priorityd from the database: the schema is as it was before, and priorities fall back to what they are outside
-- workspaces. The audit trail is deleted with its table: save repository_priority_changes first if you need it.
-- Stop the daemon first. Ordered jobs that still wait stay in background_jobs as queued, but will never be released.

do $uninstall$
declare
    -- The tables of the set in the schema priorityd.
    c_own constant name[] := array[
        'created', 'indexes', 'job_cursor', 'job_hints', 'job_lanes', 'job_turns', 'job_types', 'leases', 'migrations',
        'ordered_jobs', 'outbox', 'release_state'
    ];
    v_created text[];
    v_columns smallint[];
    v_tables oid[];
    v_functions oid[];
    v_others text;
    v_name text;
    v_ids uuid[] := '{}';
    v_at integer := 1;
    v_many integer := 1000000;
    v_messages constant text := current_setting('client_min_messages');
begin
    if to_regclass('priorityd.migrations') is null then
        raise notice 'nothing to undo: priorityd is not installed';
        return;
    end if;
    perform pg_advisory_xact_lock(hashtext('priorityd.migrations'));
    -- Autovacuum gives way to a session that has waited for a second.
    perform set_config('lock_timeout', '2s', true);

    v_created := array(select n.what from priorityd.created n);
    v_columns := array(
        select a.attnum from pg_attribute a join priorityd.created n on n.what = 'column ' || a.attname
        where a.attrelid = 'public.tracked_repositories'::regclass and not a.attisdropped
    );
    v_tables := array(select to_regclass(substr(n.what, 7)) from unnest(v_created) n (what) where n.what like 'table %');
    v_functions := array(
        select p.oid from pg_proc p
        where p.pronamespace = 'priorityd'::regnamespace or (
            p.pronamespace = 'public'::regnamespace
            and p.proname = any (array(select unnest(m.functions) from priorityd.migrations m))
        )
    );

    -- Objects that others have built on priorityd's must not be dropped unasked.
    select string_agg(o.description, ', ' order by o.description) into v_others
    from (
        select distinct pg_describe_object(d.classid, d.objid, d.objsubid) as description
        from pg_depend d
        left join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
        left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
        left join pg_constraint k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid
        left join pg_trigger t on d.classid = 'pg_trigger'::regclass and t.oid = d.objid
        where d.deptype in ('n', 'a')
            and (
                (d.refobjid = 'public.tracked_repositories'::regclass and d.refobjsubid = any (v_columns))
                or (d.refclassid = 'pg_class'::regclass and d.refobjid = any (v_tables) and d.deptype = 'n')
                or (d.refclassid = 'pg_proc'::regclass and d.refobjid = any (v_functions))
            )
            and d.classid <> 'pg_attrdef'::regclass
            and k.conname is distinct from 'tracked_repositories_manual_priority_check'
            and coalesce(k.conrelid, t.tgrelid, w.ev_class, 0) <> all (v_tables)
            and not exists (select from priorityd.created n where n.what = 'index ' || c.relname)
        union all
        select pg_describe_object('pg_class'::regclass, c.oid, 0)
        from pg_class c
        where c.relnamespace = 'priorityd'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
            and c.relname <> all (c_own)
    ) o;
    if v_others is not null then
        raise exception 'other objects depend on priorityd''s: %', v_others
            using errcode = 'dependent_objects_still_exist', hint = 'Drop or change them first. Nothing was undone.';
    end if;
    if exists (
        select from pg_proc p
        where p.oid = to_regprocedure('priorityd.memberships()')
            and btrim(regexp_replace(p.prosrc, '[[:space:]]+', ' ', 'g'))
                <> 'select m.workspace_id, m.repository_id from priorityd.default_memberships() m'
    ) then
        raise notice 'your own definition is removed, too: %', pg_get_functiondef('priorityd.memberships()'::regprocedure);
    end if;

    -- Sessions that write rows now are waited for before anything is locked, and what they write is seen below.
    lock table public.tracked_repositories in share row exclusive mode;
    -- Repositories that are high because of a workspace fall back; overrides stay. Left high, they would look like
    -- overrides to anyone who installs this again. Rows that the application refuses to have changed are found by trying
    -- fewer at a time, and left. Before the first file was applied as a whole, there is nothing to undo.
    if 4 = (
        select count(*) from pg_attribute a
        where a.attrelid = 'public.tracked_repositories'::regclass and not a.attisdropped
            and a.attname in ('priority', 'manual_priority', 'is_workspace_repo', 'workspace_count')
    ) then
        v_ids := array(select id from public.tracked_repositories where is_workspace_repo or workspace_count <> 0 order by id);
    end if;
    -- With a generic plan each of many ids is compared with each row.
    perform set_config('plan_cache_mode', 'force_custom_plan', true);
    while v_at <= cardinality(v_ids) loop
        begin
            update public.tracked_repositories
            set is_workspace_repo = false,
                workspace_count = 0,
                priority = case
                    when is_workspace_repo and priority in ('high', 'medium', 'low') then coalesce(manual_priority, 'medium')
                    else priority
                end
            where id = any (v_ids[v_at:v_at + v_many - 1]);
            -- A trigger that still waits would keep the columns from being dropped.
            set constraints all immediate;
            v_at := v_at + v_many;
            v_many := v_many * 2;
        exception
            when lock_not_available or deadlock_detected then
                raise;
            when others or assert_failure then
                if v_many = 1 then
                    raise notice 'tracked row % is left as it is: %', v_ids[v_at], sqlerrm;
                    v_at := v_at + 1;
                else
                    v_many := v_many / 2;
                end if;
        end;
    end loop;

    for v_name in select p.oid::regprocedure from pg_proc p where p.oid = any (v_functions)
        and p.pronamespace = 'public'::regnamespace
    loop
        execute format('drop function %s', v_name);
    end loop;
    drop table if exists public.workspace_priority_heartbeats;
    drop table if exists public.repository_priority_changes;
    perform set_config('client_min_messages', 'warning', true);
    drop schema priorityd cascade;
    perform set_config('client_min_messages', v_messages, true);

    for v_name in select substr(n.what, 11) from unnest(v_created) n (what) where n.what like 'published %' loop
        if exists (
            select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
            where p.pubname = 'supabase_realtime' and r.prrelid = to_regclass(v_name)
        ) then
            begin
                execute format('alter publication supabase_realtime drop table %s', v_name);
            exception
                when insufficient_privilege then
                    raise notice '% stays in the publication supabase_realtime: %', v_name, sqlerrm;
            end;
        end if;
    end loop;
    for v_name in select substr(n.what, 7) from unnest(v_created) n (what) where n.what like 'index %' loop
        execute format('drop index if exists public.%I', v_name);
    end loop;
    -- Before the columns are dropped: a comment on a missing column can't be removed.
    for v_name in select substr(n.what, 9) from unnest(v_created) n (what) where n.what like 'comment %' loop
        execute format('comment on column public.tracked_repositories.%I is null', v_name);
    end loop;
    for v_name in select substr(n.what, 8) from unnest(v_created) n (what) where n.what like 'column %' loop
        execute format('alter table public.tracked_repositories drop column if exists %I', v_name);
    end loop;
    if 'type public.repository_priority' = any (v_created) then
        drop type if exists public.repository_priority;
    end if;
    if 'table public.background_jobs' = any (v_created) then
        if exists (select from public.background_jobs) then
            raise notice 'background_jobs stays: it has jobs';
        else
            drop table public.background_jobs;
        end if;
    end if;
end
$uninstall$;
