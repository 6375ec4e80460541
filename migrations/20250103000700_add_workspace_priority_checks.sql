-- For `priorityd check`: what the database looks like to the daemon, and what the application says to its writes.

do $functions$
begin
    if not priorityd.start_unit(
        '20250103000700 functions', 1, '{20250103000600 functions}', '{check_workspace_priorities}'
    ) then
        return;
    end if;

    -- Whether priorityd.memberships() is the operator's own, whether the planner sees through it, and what it costs in
    -- milliseconds, for one repository and in full.
    create or replace function priorityd.check_memberships()
    returns jsonb language plpgsql as $$
    declare
        v_plan json;
        v_began timestamptz;
        v_repository_id uuid;
        v_one double precision;
        v_memberships bigint;
    begin
        execute 'explain (format json) select * from priorityd.memberships()' into v_plan;
        select m.repository_id into v_repository_id from priorityd.memberships() m limit 1;
        v_began := clock_timestamp();
        perform from priorityd.memberships() m where m.repository_id = v_repository_id;
        v_one := extract(epoch from clock_timestamp() - v_began) * 1000;
        v_began := clock_timestamp();
        select count(*) into v_memberships from priorityd.memberships();
        return jsonb_build_object(
            'own', not priorityd.memberships_are_as_installed(),
            'inlined', v_plan::text not like '%"Function Name": "memberships"%',
            'memberships', v_memberships,
            'one_ms', round(v_one::numeric, 3),
            'all_ms', round((extract(epoch from clock_timestamp() - v_began) * 1000)::numeric, 3)
        );
    end
    $$;

    -- How much of a deleted membership the change stream shows.
    create or replace function priorityd.check_membership_table()
    returns jsonb language sql stable as $$
        select jsonb_build_object(
            'exists', true,
            'row_level_security', t.secured,
            'replica_identity', t.identity,
            'primary_key', to_jsonb(t.primary_key),
            -- With row level security on, a DELETE carries the columns of the primary key only, whatever the replica
            -- identity is.
            'delete_names_repository', case t.identity
                when 'nothing' then false
                when 'full' then not t.secured or 'repository_id' = any (t.primary_key)
                when 'index' then 'repository_id' = any (t.identity_columns)
                    and (not t.secured or 'repository_id' = any (t.primary_key))
                else 'repository_id' = any (t.primary_key)
            end
        )
        from (
            select c.relrowsecurity as secured,
                case c.relreplident
                    when 'd' then 'default' when 'f' then 'full' when 'n' then 'nothing' when 'i' then 'index'
                end as identity,
                coalesce(array_agg(a.attname::text order by k.position) filter (where i.indisprimary), '{}') as primary_key,
                coalesce(array_agg(a.attname::text) filter (where i.indisreplident), '{}') as identity_columns
            from pg_class c
            left join pg_index i on i.indrelid = c.oid
            left join lateral unnest(i.indkey::smallint[]) with ordinality k (attnum, position) on k.position <= i.indnkeyatts
            left join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
            where c.oid = 'public.workspace_repositories'::regclass
            group by c.relrowsecurity, c.relreplident
        ) t
    $$;

    -- By table, the statements that publish a followed table completely, as far as that breaks nothing: if some published
    -- table can't name its rows, publishing more kinds of changes would make the application's writes to it fail.
    create or replace function priorityd.publication_repairs(p_unsafe text[])
    returns jsonb language sql stable as $$
        select coalesce(jsonb_object_agg(f.name, r.statement), '{}')
        from priorityd.followed_tables() f
        join pg_publication p on p.pubname = 'supabase_realtime'
        left join pg_publication_rel l on l.prpubid = p.oid and l.prrelid = to_regclass('public.' || f.name)
        cross join lateral (
            select case
                when not (p.pubinsert and p.pubupdate and p.pubdelete) and p_unsafe = '{}' then
                    'alter publication supabase_realtime set (publish = ''insert, update, delete'
                        || case when p.pubtruncate then ', truncate' else '' end || ''')'
                when (l.prqual is not null or l.prattrs is not null) and f.identified then format(
                    'alter publication supabase_realtime drop table public.%1$I; '
                    'alter publication supabase_realtime add table public.%1$I', f.name)
            end as statement
        ) r
        where f.listed and f.flaws <> '{}' and r.statement is not null
    $$;

    -- What the publication really publishes of the tables that are followed. `unsafe` are the tables in it, the
    -- application's own among them, whose UPDATEs and DELETEs can't name their rows.
    create or replace function priorityd.check_publication()
    returns jsonb language plpgsql stable as $$
    declare
        v_unsafe constant text[] := array(
            select t.relid::regclass::text
            from pg_publication p cross join lateral pg_get_publication_tables(p.pubname) t
            where p.pubname = 'supabase_realtime' and not priorityd.names_rows(t.relid)
            order by 1
        );
    begin
        return (
            select jsonb_build_object(
                'exists', exists (select from pg_publication p where p.pubname = 'supabase_realtime'),
                'owner', (
                    select pg_get_userbyid(p.pubowner) from pg_publication p where p.pubname = 'supabase_realtime'
                ),
                'tables', coalesce(jsonb_agg(f.name order by f.name) filter (where f.listed), '[]'),
                'missing', coalesce(jsonb_agg(f.name order by f.name) filter (where not f.listed and f.flaws = '{}'), '[]'),
                'unidentified', coalesce(jsonb_agg(f.name order by f.name) filter (where not f.identified), '[]'),
                'partitioned', coalesce(jsonb_agg(f.name order by f.name) filter (where f.partitioned), '[]'),
                'flaws', coalesce(jsonb_object_agg(f.name, f.flaws) filter (where f.flaws <> '{}'), '{}'),
                'repairs', priorityd.publication_repairs(v_unsafe),
                'unsafe', to_jsonb(v_unsafe)
            )
            from priorityd.followed_tables() f
        );
    end
    $$;

    -- Whether PostgreSQL refuses to load wal2json, by which Realtime reads: the minor releases of 2026 do
    -- unless output_plugin_libraries names it. Older ones do not have that setting, and refuse nothing.
    create or replace function priorityd.refuses_wal2json()
    returns boolean language sql stable as $$
        select coalesce(
            (select 'wal2json' <> all (regexp_split_to_array(translate(btrim(s.setting), '"', ''), ' *, *'))
             from pg_settings s where s.name = 'output_plugin_libraries'),
            false
        )
    $$;

    -- Who refused a write of a tracked row, by what PostgreSQL says of the error: in words, and a query that shows them.
    create or replace function priorityd.blame(
        p_state text, p_message text, p_constraint text, p_table text, p_context text, out culprits text[], out look text
    )
    language plpgsql stable as $$
    declare
        c_table constant regclass := 'public.tracked_repositories';
        v_function regprocedure;
    begin
        select array_agg(distinct format('the trigger %I, which calls %s', t.tgname, p.oid::regprocedure)), min(p.oid)
        into culprits, v_function
        from pg_trigger t join pg_proc p on p.oid = t.tgfoid
        where t.tgrelid = c_table and not t.tgisinternal
            and (
                position(format(' %I() ', p.proname) in p_context) > 0
                or position(format('.%I() ', p.proname) in p_context) > 0
            );
        if v_function is not null then
            look := format('select pg_get_functiondef(%L::regprocedure)', v_function);
        end if;
        if p_constraint <> '' then
            culprits := culprits
                || format('the constraint %I of %s', p_constraint, coalesce(nullif(p_table, ''), 'a domain'));
            look := coalesce(look, format(
                'select conrelid::regclass, pg_get_constraintdef(oid) from pg_constraint where conname = %L', p_constraint
            ));
        elsif culprits is null and p_state = '42501' then
            culprits := array(
                select case when p.polpermissive then 'the permissive' else 'the restrictive' end
                    || format(' policy %I', p.polname)
                from pg_policy p
                where p.polrelid = c_table and p.polcmd in ('*', 'w')
                    -- A restrictive one is named, in quotes.
                    and (p_message not like '%"%"%"%' or position(format('"%s"', p.polname) in p_message) > 0)
                order by p.polname
            );
            look := 'select * from pg_policies where tablename = ''tracked_repositories''';
        elsif culprits is null and p_state = '' then
            culprits := array(
                select format('the trigger %I, which calls %s', t.tgname, t.tgfoid::regprocedure)
                from pg_trigger t
                -- For each row, before or after, update.
                where t.tgrelid = c_table and t.tgtype & 17 = 17 and not t.tgisinternal and t.tgenabled <> 'D'
                union all
                select format('the rule %I', r.rulename) from pg_rewrite r where r.ev_class = c_table and r.ev_type = '2'
                order by 1
            );
            look := 'select tgname, pg_get_triggerdef(oid) from pg_trigger'
                ' where tgrelid = ''public.tracked_repositories''::regclass';
        end if;
        culprits := coalesce(culprits, '{}');
    end
    $$;

    -- Writes a tracked row as a sync would, to high or to medium, and takes that back at once, with all that the
    -- application's triggers did. Null if nothing stood in the way, or if the row is locked: it is not waited for.
    create or replace function priorityd.try_write(p_id uuid, p_high boolean)
    returns jsonb language plpgsql as $$
    declare
        c_taken_back constant text := 'PT299';
        v_priority public.tracked_repositories.manual_priority%type := case when p_high then 'high' else 'medium' end;
        v_count integer;
        v_written uuid;
        v_kept boolean;
        v_state text;
        v_message text;
        v_constraint text;
        v_table text;
        v_context text;
    begin
        begin
            select case when p_high then coalesce(tr.workspace_count, 0) + 1 else 0 end into v_count
            from public.tracked_repositories tr where tr.id = p_id
            for no key update skip locked;
            if not found then
                return null;
            end if;
            -- In the form in which priorities are written: PostgreSQL allows some rules in other forms, but not in this one.
            with written as (
                update public.tracked_repositories tr
                set priority = v_priority, is_workspace_repo = p_high, workspace_count = v_count,
                    manual_priority = tr.manual_priority
                where tr.id = p_id
                returning tr.id
            )
            select w.id into v_written from written w;
            set constraints all immediate;
            v_kept := exists (
                select from public.tracked_repositories tr
                where tr.id = v_written and (tr.priority::text, tr.is_workspace_repo, tr.workspace_count)
                    is not distinct from (v_priority::text, p_high, v_count)
            );
            raise exception using errcode = c_taken_back;
        exception
            when others or assert_failure then
                get stacked diagnostics v_state = returned_sqlstate, v_message = message_text,
                    v_constraint = constraint_name, v_table = table_name, v_context = pg_exception_context;
                if v_state in ('55P03', '40P01') or v_state = c_taken_back and v_kept then
                    return null;
                end if;
                -- The fault is the server's, not the row's: it accepts no writes, or has no room.
                if v_state = '25006' or v_state ~ '^(53|57|58)' then
                    raise;
                end if;
        end;
        if v_state = c_taken_back then
            v_state := '';
            v_message := 'the row stays as it is, without an error';
        end if;
        return (
            select to_jsonb(b) || jsonb_build_object('id', p_id, 'sqlstate', v_state, 'message', left(v_message, 300))
            from priorityd.blame(v_state, v_message, v_constraint, v_table, v_context) b
        );
    end
    $$;

    -- Does the application refuse the change of every row, not only of these? It is tried on a few others of each kind.
    create or replace function priorityd.refuses_all_rows(p_refused_ids uuid[])
    returns boolean language sql as $$
        select not exists (
            select from unnest('{true,false}'::boolean[]) k (flag)
            cross join lateral (
                select tr.id from public.tracked_repositories tr
                where tr.is_workspace_repo = k.flag and tr.id <> all (p_refused_ids)
                limit 5
            ) o
            where priorityd.try_write(o.id, not k.flag) is null
        )
    $$;

    -- What the application says to writes of some tracked rows; of several equal refusals one is listed, with their number.
    create or replace function priorityd.try_writes()
    returns jsonb language plpgsql as $$
    declare
        v_ids constant uuid[] := array(
            (select tr.id from public.tracked_repositories tr order by tr.id limit 3)
            union
            (select tr.id from public.tracked_repositories tr order by tr.id desc limit 2)
        );
        v_id uuid;
        v_said jsonb[] := '{}';
    begin
        foreach v_id in array v_ids loop
            v_said := v_said || priorityd.try_write(v_id, true) || priorityd.try_write(v_id, false);
        end loop;
        return jsonb_build_object('rows', cardinality(v_ids), 'refused', (
            select coalesce(jsonb_agg(r.said || jsonb_build_object('rows', r.rows) order by r.rows desc), '[]')
            from (
                select (array_agg(s.said))[1] - 'id' as said, count(distinct s.said -> 'id') as rows
                from unnest(v_said) s (said)
                where s.said is not null
                group by s.said -> 'sqlstate', s.said -> 'culprits'
            ) r
        ));
    end
    $$;

    -- Functions in public that are recorded as applied and are not there, and what of ours the caller may not use.
    create or replace function priorityd.missing_functions()
    returns text[] language sql stable as $$
        select array(
            select f.name::text from priorityd.migrations m cross join lateral unnest(m.functions) f (name)
            where not exists (select from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname = f.name)
            order by 1
        )
    $$;

    create or replace function priorityd.ungranted_objects()
    returns text[] language sql stable as $$
        select array(
            select o.name from priorityd.public_objects() o cross join lateral unnest(o.rights) r (word)
            where not case
                when o.name like 'table %' then has_table_privilege(substr(o.name, 7), r.word)
                else has_function_privilege(substr(o.name, 10), r.word)
            end
            group by o.name
            order by o.name
        )
    $$;

    -- What the database looks like to the daemon: for `priorityd check`. It tries writes, and nothing remains of them.
    create or replace function public.check_workspace_priorities()
    returns jsonb language plpgsql
    set search_path = public, extensions
    set lock_timeout = '1s'
    set statement_timeout = '10s'
    set default_transaction_isolation = 'read committed'
    as $$
    begin
        return jsonb_build_object(
            'role', current_user,
            'schema_version', public.workspace_priority_schema_version(),
            'publication', priorityd.check_publication(),
            'refuses_wal2json', priorityd.refuses_wal2json(),
            'hidden', to_jsonb(priorityd.hidden_tables()),
            'memberships', priorityd.check_memberships(),
            'missing_indexes', (
                select coalesce(jsonb_agg(n.name order by n.name), '[]') from priorityd.missing_indexes() n
                where to_regclass('public.' || n.table_name) is not null
            ),
            'workspace_repositories', priorityd.check_membership_table(),
            'missing_functions', to_jsonb(priorityd.missing_functions()),
            'ungranted', to_jsonb(priorityd.ungranted_objects()),
            -- Without the right to write, or sight of every row, there is nothing to try.
            'writes', case
                when priorityd.hidden_tables() = '{}'
                    and has_column_privilege('public.tracked_repositories', 'priority', 'update') then priorityd.try_writes()
            end
        );
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
