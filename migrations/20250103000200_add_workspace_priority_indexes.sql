-- The indexes on the application's tables, and finding by them which rows are wrong. They are listed once: the unit below
-- builds missing ones, concurrently/ builds the same without blocking writers, and uninstall.sql removes them.

do $tables$
declare
    -- Rows that are wrong whatever the membership is: flag, count, priority and override contradict each other.
    -- No index on the application's tables may call a function of ours, or its own writes would need privileges on it; so
    -- this condition is inserted as text into the index and into the function that uses it.
    c_drifted constant text := $drifted$(
            (is_workspace_repo and workspace_count > 0 and repository_id is not null and priority = case
                when manual_priority not in ('high', 'medium', 'low') then manual_priority else 'high'
            end)
            or (not is_workspace_repo and workspace_count = 0 and priority = coalesce(manual_priority, 'medium'))
        ) is not true$drifted$;
begin
    if not priorityd.start_unit('20250103000200 indexes', 1, '{20250103000100 backfill}') then
        return;
    end if;

    -- The inconsistent tracked rows. Inlined, so that unused columns are not read.
    execute format($definition$
        create or replace function priorityd.tracked_rows()
        returns table (id uuid, repository_id uuid, is_workspace_repo boolean, workspace_count integer, drifted boolean)
        language sql stable as $$
            select id, repository_id, is_workspace_repo, workspace_count::integer, %s
            from public.tracked_repositories
        $$
    $definition$, c_drifted);

    if to_regclass('priorityd.indexes') is null then
        -- An index of the application's own that begins with the columns of unless_led_by is as good.
        create table priorityd.indexes (
            name name primary key,
            table_name name not null,
            definition text not null,
            unless_led_by name[]
        );
    end if;
    insert into priorityd.indexes as n (name, table_name, definition, unless_led_by)
    values
        -- For inversions, and what is counted by flag and priority. Not with tracking_enabled: no query reads less for
        -- it, and each time that the application switches it, every index of the table would be written to
        -- (`python -m tests.benchmarks application`).
        ('idx_tracked_repos_workspace_priority', 'tracked_repositories', '(is_workspace_repo, priority)', null),
        -- Job queueing and each sync look tracked rows up by repository.
        ('idx_tracked_repos_repository_id', 'tracked_repositories', '(repository_id)', '{repository_id}'),
        -- The sweep compares memberships with these, in repository order and without touching the table's rows.
        ('idx_tracked_repos_workspace_counts', 'tracked_repositories',
         '(repository_id) include (workspace_count) where is_workspace_repo', null),
        -- Empty when all is well: finding such rows costs nothing, however many are tracked. By both columns, because a
        -- resync's pages are ranges of repositories, and of the ids of rows without one.
        ('idx_tracked_repos_priority_drift', 'tracked_repositories', '(repository_id, id) where ' || c_drifted, null),
        -- The memberships of a repository; unique (workspace_id, repository_id) does not serve.
        ('idx_workspace_repositories_repository_workspace', 'workspace_repositories',
         '(repository_id, workspace_id)', '{repository_id,workspace_id}')
    on conflict (name) do update
    set table_name = excluded.table_name, definition = excluded.definition, unless_led_by = excluded.unless_led_by
    where (n.table_name, n.definition, n.unless_led_by)
        is distinct from (excluded.table_name, excluded.definition, excluded.unless_led_by);

    -- The size of a table with all its partitions in bytes: a partitioned table has no rows itself. Null without a table.
    create or replace function priorityd.table_size(p_table regclass)
    returns bigint language sql stable as $$
        with recursive tree as (
            select p_table::oid as relid
            union
            select i.inhrelid from pg_inherits i join tree t on t.relid = i.inhparent
        )
        select sum(coalesce(pg_relation_size(t.relid), 0))::bigint from tree t where t.relid is not null
    $$;

    -- The statements that build an index on a partitioned table without making writers wait: an empty one on the table,
    -- one `concurrently` on each partition, and each attached to the one above it, by which that becomes valid. What is
    -- done already is left out. The index of a partition has the partition's oid in its name.
    create or replace function priorityd.partitioned_index_statements(p_table regclass, p_name name, p_definition text)
    returns text[] language plpgsql stable as $$
    declare
        v_part record;
        v_attached boolean;
        v_valid boolean;
        v_statements text[] := '{}';
    begin
        -- An index of that name may belong to a table that this one has replaced.
        if not exists (
            select from pg_index i where i.indexrelid = to_regclass('public.' || p_name) and i.indrelid = p_table
        ) then
            if to_regclass('public.' || p_name) is not null then
                v_statements := v_statements || format('drop index concurrently public.%I', p_name);
            end if;
            v_statements := v_statements || format('create index %I on only %s %s', p_name, p_table, p_definition);
        end if;
        for v_part in
            select t.relid, t.isleaf, format('%I.%I', n.nspname, p_name || '_' || t.relid) as index_name,
                format('%I', p_name || '_' || t.relid) as bare_name,
                case when t.level = 1 then format('public.%I', p_name)
                    else format('%I.%I', a.nspname, p_name || '_' || t.parentrelid) end as index_above
            from pg_partition_tree(p_table) t
            join pg_class c on c.oid = t.relid
            join pg_namespace n on n.oid = c.relnamespace
            join pg_class b on b.oid = t.parentrelid
            join pg_namespace a on a.oid = b.relnamespace
            order by t.level, t.relid
        loop
            v_attached := exists (
                select from pg_inherits h join pg_index i on i.indexrelid = h.inhrelid
                where h.inhparent = to_regclass(v_part.index_above) and i.indrelid = v_part.relid
            );
            v_valid := (select i.indisvalid from pg_index i where i.indexrelid = to_regclass(v_part.index_name));
            if not v_attached and v_part.isleaf and not v_valid then
                v_statements := v_statements || format('drop index concurrently %s', v_part.index_name);
            end if;
            if not v_attached and (v_valid is null or (v_part.isleaf and not v_valid)) then
                v_statements := v_statements || format(
                    'create index %s %s on %s %s', case when v_part.isleaf then 'concurrently' end, v_part.bare_name,
                    case when v_part.isleaf then '' else 'only ' end || v_part.relid::regclass, p_definition
                );
            end if;
            if not v_attached then
                v_statements := v_statements || format('alter index %s attach partition %s', v_part.index_above, v_part.index_name);
            end if;
        end loop;
        return v_statements;
    end
    $$;

    -- The missing indexes, with the statements that build them. One whose build was interrupted exists, but is useless. An
    -- index of that name on another table is dropped only if it was made here: its table has been swapped for another.
    create or replace function priorityd.missing_indexes(p_concurrently boolean default false)
    returns table (name name, table_name name, statements text[])
    language sql stable as $$
        select n.name, n.table_name, case when p_concurrently and t.relkind = 'p' then
                priorityd.partitioned_index_statements(t.oid, n.name, n.definition)
            else array_remove(array[
                case
                    when exists (
                        select from pg_index x where x.indexrelid = to_regclass('public.' || n.name) and (
                            x.indrelid = t.oid
                            or exists (select from priorityd.created k where k.what = 'index ' || n.name)
                        )
                    ) then format('drop index%s public.%I', w.concurrently, n.name)
                end,
                format('create index%s %I on public.%I %s', w.concurrently, n.name, n.table_name, n.definition)
            ], null) end
        from priorityd.indexes n
        cross join (select case when p_concurrently then ' concurrently' else '' end as concurrently) w
        left join pg_class t on t.oid = to_regclass('public.' || n.table_name)
        where not exists (
            select from pg_index i
            where i.indrelid = t.oid and i.indisvalid
                and (i.indexrelid = to_regclass('public.' || n.name)
                    or (i.indpred is null and n.unless_led_by = array(
                        select a.attname
                        from unnest(i.indkey::smallint[]) with ordinality k (attnum, position)
                        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                        where k.position <= least(cardinality(n.unless_led_by), i.indnkeyatts)
                        order by k.position
                    )))
        )
    $$;

    -- Raises if something else has one of these names.
    create or replace function priorityd.demand_index_names()
    returns void language plpgsql stable as $$
    declare
        v_taken text;
    begin
        select string_agg(c.relname, ', ' order by c.relname) into v_taken
        from priorityd.indexes n
        join pg_class c on c.oid = to_regclass('public.' || n.name)
        left join pg_index i on i.indexrelid = c.oid
        where i.indrelid is distinct from to_regclass('public.' || n.table_name)
            and not exists (select from priorityd.created k where k.what = 'index ' || n.name);
        if v_taken is not null then
            raise exception 'the application has something of that name already: %', v_taken
                using errcode = 'duplicate_table', hint = 'Rename it, then apply this migration again.';
        end if;
    end
    $$;

    -- Building an index blocks the writers of its table until the transaction ends.
    create or replace function priorityd.build_indexes(p_table name)
    returns void language plpgsql as $$
    declare
        v_index record;
        v_statement text;
    begin
        perform set_config('lock_timeout', '2s', true);
        for v_index in select m.* from priorityd.missing_indexes() m where m.table_name = p_table loop
            foreach v_statement in array v_index.statements loop
                execute v_statement;
            end loop;
            insert into priorityd.created values ('index ' || v_index.name) on conflict do nothing;
        end loop;
    end
    $$;

    perform priorityd.demand_index_names();
    if current_setting('priorityd.part', true) = 'columns' then
        return;
    end if;
    perform priorityd.build_indexes('tracked_repositories');
    -- Last, so that writers of memberships wait as briefly as possible.
    perform priorityd.build_indexes('workspace_repositories');
end
$tables$;

-- ---------------------------------------------------------------------------------------------------------------
-- Finding what is wrong. Ranges are of repositories, after p_after and up to p_until; null means no bound.
-- ---------------------------------------------------------------------------------------------------------------

do $functions$
declare
    v_name text;
    v_count text;
    v_counts text;
begin
    if not priorityd.start_unit('20250103000200 functions', 1, '{20250103000200 indexes}') then
        return;
    end if;

    -- These are inlined, and the conditions on null parameters disappear from a custom plan. rows_between counts what
    -- counted_between counts where no pair repeats or lacks an id, and takes less.
    for v_name, v_count, v_counts in values
        ('counted_between', 'count(distinct m.workspace_id)', 'm.workspace_id is not null and m.repository_id is not null'),
        ('rows_between', 'count(*)', 'true')
    loop
        execute format($definition$
            create or replace function priorityd.%I(p_after uuid, p_until uuid)
            returns table (repository_id uuid, workspaces bigint)
            language sql stable as $$
                select m.repository_id, %s
                from priorityd.memberships() m
                where %s
                    and (p_after is null or m.repository_id > p_after) and (p_until is null or m.repository_id <= p_until)
                group by m.repository_id
            $$
        $definition$, v_name, v_count, v_counts);
    end loop;

    create or replace function priorityd.tracked_between(p_after uuid, p_until uuid)
    returns table (id uuid, repository_id uuid, is_workspace_repo boolean, workspace_count integer, drifted boolean)
    language sql stable as $$
        select t.id, t.repository_id, t.is_workspace_repo, t.workspace_count, t.drifted
        from priorityd.tracked_rows() t
        where t.repository_id is not null
            and (p_after is null or t.repository_id > p_after) and (p_until is null or t.repository_id <= p_until)
    $$;

    -- The rows without a repository: in a range of keys they are ordered by their own ids.
    create or replace function priorityd.nameless_between(p_after uuid, p_until uuid)
    returns table (id uuid, drifted boolean)
    language sql stable as $$
        select t.id, t.drifted
        from priorityd.tracked_rows() t
        where t.repository_id is null and (p_after is null or t.id > p_after) and (p_until is null or t.id <= p_until)
    $$;

    -- Repositories whose memberships and tracked rows disagree, including those without a tracked row. One pass over
    -- the memberships beside one over the flagged rows, both in repository order from indexes; tracked rows outside
    -- workspaces are not read. Where a repository may have several rows, one of them can be right and flagged and another
    -- not: then all are read. Rows that contradict themselves are found by other means.
    create or replace function priorityd.mismatched_between(p_after uuid, p_until uuid)
    returns setof uuid language plpgsql stable
    set jit = off
    -- Both indexes are in order already, so merging them takes a third of the time of hashing; the planner believes
    -- otherwise. The memory is for the time between many changes and the next vacuum, when sorting replaces one of the
    -- indexes; little of it is used otherwise.
    set enable_hashjoin = off
    set enable_hashagg = off
    -- Otherwise the planner takes the table's rows for cached and free, and may prefer an index of the application's on the
    -- repository alone to the index of pairs, only because it is less high: reading the rows as well takes several times as
    -- long.
    set effective_cache_size = '1MB'
    set work_mem = '64MB'
    as $$
    declare
        v_one_row constant boolean := priorityd.is_unique('public.tracked_repositories', '{repository_id}');
    begin
        return query execute format($query$
            select coalesce(m.repository_id, f.repository_id)
            from priorityd.%I($1, $2) m
            full join (
                select t.repository_id, %s as workspace_count from priorityd.tracked_between($1, $2) t where %s
            ) f on f.repository_id = m.repository_id
            where m.workspaces is distinct from f.workspace_count
        $query$,
            case when priorityd.pairs_are_unique() then 'rows_between' else 'counted_between' end,
            case when v_one_row then 't.workspace_count' else 'nullif(t.workspace_count, 0)' end,
            case when v_one_row then 't.is_workspace_repo' else 'true' end
        ) using p_after, p_until;
    end
    $$;

    -- Where a page of p_limit tracked rows ends; null at the last. The key of a row is its repository, or its own id where
    -- it has none.
    create or replace function priorityd.page_end(p_after uuid, p_limit integer)
    returns uuid language plpgsql stable
    set plan_cache_mode = force_custom_plan
    as $$
    declare
        v_until constant uuid := (
            select k.key
            from (
                (select t.repository_id as key from priorityd.tracked_between(p_after, null) t order by 1 limit p_limit)
                union all
                (select n.id from priorityd.nameless_between(p_after, null) n order by 1 limit p_limit)
            ) k
            order by k.key
            offset p_limit - 1
            limit 1
        );
    begin
        return case
            when exists (select from priorityd.tracked_between(v_until, null))
                or exists (select from priorityd.nameless_between(v_until, null)) then v_until
        end;
    end
    $$;

    -- The rows of a range that may be wrong, from indexes alone: those that contradict themselves, and those whose flag and
    -- count disagree with the memberships. All others are right: how many there are, and how many of them in a workspace.
    create or replace function priorityd.suspects_between(
        p_after uuid,
        p_until uuid,
        out suspects uuid[],
        out right_rows bigint,
        out right_in_workspace bigint,
        out untracked bigint
    )
    language plpgsql stable
    set plan_cache_mode = force_custom_plan
    set jit = off
    as $$
    declare
        v_mismatched constant uuid[] := array(select priorityd.mismatched_between(p_after, p_until));
        v_tracked uuid[];
        v_flagged bigint;
    begin
        with mismatched as (
            select t.id, t.repository_id, t.is_workspace_repo, t.drifted
            from priorityd.tracked_rows() t
            where t.repository_id = any (v_mismatched)
        ),
        suspect as (
            select m.id, m.is_workspace_repo from mismatched m where not m.drifted
            union all
            select t.id, t.is_workspace_repo from priorityd.tracked_between(p_after, p_until) t where t.drifted
            union all
            select n.id, false from priorityd.nameless_between(p_after, p_until) n where n.drifted
        )
        select coalesce(array_agg(s.id), '{}'), count(*) filter (where s.is_workspace_repo),
            array(select m.repository_id from mismatched m)
        into suspects, v_flagged, v_tracked
        from suspect s;
        right_rows := (select count(*) from priorityd.tracked_between(p_after, p_until))
            + (select count(*) from priorityd.nameless_between(p_after, p_until)) - cardinality(suspects);
        right_in_workspace := (
            select count(*) from priorityd.tracked_between(p_after, p_until) t where t.is_workspace_repo
        ) - v_flagged;
        untracked := priorityd.count_untracked(
            array(select m from unnest(v_mismatched) m except select t from unnest(v_tracked) t)
        );
    end
    $$;
end
$functions$;
