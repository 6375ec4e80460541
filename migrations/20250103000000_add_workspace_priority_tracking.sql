-- Workspace priority tracking: what tracked_repositories knows about workspaces, the trail of
-- every change to it, and the first fill of both.
--
-- The application's schema is taken as it is found. `priority` may be an enum of any name in any schema, a
-- text type, or missing; the columns may be there already, with NULLs in them. Whatever this file had to
-- create is written down in workspace_priority_migrations, so that rollback/ removes that and nothing else.
-- Safe to apply again: nothing is created twice, and rows that are right are not written.
--
-- All of it is one transaction, and adding columns locks tracked_repositories against everybody until its end:
-- seconds on a million rows. Where that is too long, run concurrently/ before: then everything is there already
-- and nothing here waits or makes wait. It has this file add the columns and stop, by setting
-- workspace_priority.part to 'columns'.

-- A migration that waits for a table lock makes every later statement on that table wait behind it.
-- So it gives up after a while and can be tried again; the setting ends with the transaction.
do $$
begin
    perform set_config('lock_timeout', '15s', true);
end
$$;

do $$
begin
    if to_regclass('public.tracked_repositories') is null or to_regclass('public.workspace_repositories') is null then
        raise exception 'public.tracked_repositories and public.workspace_repositories must exist before this migration'
            using errcode = 'undefined_table',
                  hint = 'Apply the application''s own migrations first.';
    end if;
    if to_regclass('public.repository_priority_changes') is not null
        and to_regclass('public.workspace_priority_migrations') is null then
        raise exception 'public.repository_priority_changes exists already and was not made by this migration'
            using errcode = 'duplicate_table',
                  hint = 'Rename that table: the audit trail of priority changes needs its name.';
    end if;
end
$$;

-- One row for each of these files, with what it created in the application's own objects.
create table if not exists public.workspace_priority_migrations (
    version text primary key,
    name text not null,
    created text[] not null default '{}',
    applied_at timestamptz not null default now()
);
alter table public.workspace_priority_migrations enable row level security;

insert into public.workspace_priority_migrations (version, name)
values ('20250103000000', '20250103000000_add_workspace_priority_tracking.sql')
on conflict (version) do nothing;

-- ---------------------------------------------------------------------------------------------------------
-- Columns
-- ---------------------------------------------------------------------------------------------------------

do $$
declare
    c_version constant text := '20250103000000';
    c_needed constant text[] := array['high', 'medium', 'low'];
    c_hint constant text := 'Priorities are written as the enum labels or texts high, medium and low.';
    v_type oid;
    v_modifier integer;
    v_name text;
    v_missing text[];
begin
    select a.atttypid, a.atttypmod into v_type, v_modifier
    from pg_attribute a
    where a.attrelid = 'public.tracked_repositories'::regclass and a.attname = 'priority' and not a.attisdropped;

    if v_type is null then
        if to_regtype('public.repository_priority') is null then
            create type public.repository_priority as enum ('high', 'medium', 'low');
            update public.workspace_priority_migrations
            set created = created || 'type public.repository_priority'::text where version = c_version;
        end if;
        v_type := to_regtype('public.repository_priority');
    end if;

    -- A domain counts as the type beneath it: CASE and COALESCE yield that type, never the domain.
    while exists (select from pg_type t where t.oid = v_type and t.typtype = 'd') loop
        select t.typbasetype, t.typtypmod into v_type, v_modifier from pg_type t where t.oid = v_type;
    end loop;
    v_name := format_type(v_type, v_modifier);
    if (select typtype from pg_type where oid = v_type) = 'e' then
        select array_agg(n.label order by n.label) into v_missing
        from unnest(c_needed) as n (label)
        where not exists (select from pg_enum e where e.enumtypid = v_type and e.enumlabel = n.label);
        if v_missing is not null then
            raise exception 'the enum % lacks %', v_name, array_to_string(v_missing, ', ')
                using errcode = 'undefined_object', detail = c_hint,
                      hint = format(
                          'Add what is missing in a transaction of its own, then apply this migration again: %s',
                          (select string_agg(format('alter type %s add value %L;', v_name, m.label), ' ')
                           from unnest(v_missing) as m (label)));
        end if;
    elsif (select typcategory from pg_type where oid = v_type) <> 'S' then
        raise exception 'tracked_repositories.priority has the type %, which is neither an enum nor a text type', v_name
            using errcode = 'datatype_mismatch', detail = c_hint,
                  hint = 'Change the column to text or to an enum with these labels, then apply this migration again.';
    end if;

    if not exists (
        select from pg_attribute
        where attrelid = 'public.tracked_repositories'::regclass and attname = 'priority' and not attisdropped
    ) then
        alter table public.tracked_repositories add column priority public.repository_priority default 'medium';
        update public.workspace_priority_migrations
        set created = created || 'column priority'::text where version = c_version;
    end if;

    if not exists (
        select from pg_attribute
        where attrelid = 'public.tracked_repositories'::regclass and attname = 'manual_priority' and not attisdropped
    ) then
        -- The type of priority, so that the two can be assigned and compared without casts.
        -- Checked below: a constraint that comes with its column reads the whole table under the strongest lock.
        execute format(
            'alter table public.tracked_repositories add column manual_priority %s,
                 add constraint tracked_repositories_manual_priority_check
                 check (manual_priority in (''high'', ''medium'', ''low'')) not valid', v_name);
        update public.workspace_priority_migrations
        set created = created || 'column manual_priority'::text where version = c_version;
    elsif not exists (
        select from pg_attribute
        where attrelid = 'public.tracked_repositories'::regclass and attname = 'manual_priority' and atttypid = v_type
    ) then
        raise exception 'tracked_repositories.manual_priority exists with another type than priority'
            using errcode = 'datatype_mismatch',
                  hint = format('Change its type to %s or rename it, then apply this migration again.', v_name);
    end if;

    if not exists (
        select from pg_attribute
        where attrelid = 'public.tracked_repositories'::regclass and attname = 'is_workspace_repo' and not attisdropped
    ) then
        alter table public.tracked_repositories add column is_workspace_repo boolean default false;
        update public.workspace_priority_migrations
        set created = created || 'column is_workspace_repo'::text where version = c_version;
    end if;

    if not exists (
        select from pg_attribute
        where attrelid = 'public.tracked_repositories'::regclass and attname = 'workspace_count' and not attisdropped
    ) then
        alter table public.tracked_repositories add column workspace_count integer default 0;
        update public.workspace_priority_migrations
        set created = created || 'column workspace_count'::text where version = c_version;
    end if;

    if not exists (
        select from pg_attribute
        where attrelid = 'public.tracked_repositories'::regclass and attname = 'tracking_enabled' and not attisdropped
    ) then
        alter table public.tracked_repositories add column tracking_enabled boolean default true;
        update public.workspace_priority_migrations
        set created = created || 'column tracking_enabled'::text where version = c_version;
    end if;
end
$$;

-- A comment that the application wrote itself is left alone.
do $$
declare
    v_column text;
    v_comment text;
begin
    if current_setting('workspace_priority.part', true) = 'columns' then
        return;
    end if;
    if exists (
        select from pg_constraint
        where conrelid = 'public.tracked_repositories'::regclass
            and conname = 'tracked_repositories_manual_priority_check' and not convalidated
    ) then
        alter table public.tracked_repositories validate constraint tracked_repositories_manual_priority_check;
    end if;
    for v_column, v_comment in values
        ('is_workspace_repo',
         'True if this repository is tracked by at least one workspace. Auto-synced every 6 hours.'),
        ('workspace_count',
         'Number of workspaces tracking this repository. Used for priority scoring.'),
        ('manual_priority',
         'Explicit override: the priority while the repository is in no workspace; null means medium.')
    loop
        if (
            select col_description(attrelid, attnum) from pg_attribute
            where attrelid = 'public.tracked_repositories'::regclass and attname = v_column
        ) is null then
            execute format('comment on column public.tracked_repositories.%I is %L', v_column, v_comment);
            update public.workspace_priority_migrations
            set created = created || ('comment ' || v_column) where version = '20250103000000';
        end if;
    end loop;
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Audit trail and outbox
-- ---------------------------------------------------------------------------------------------------------

-- One row for each change of a priority or of the flag, written in the transaction that makes the change:
-- the trail can neither miss a change nor tell of one that was rolled back. Being read by the dispatcher
-- makes the same row the outbox. No foreign keys: the trail outlives the repository, and the application's
-- deletes must not pay for it.
create table if not exists public.repository_priority_changes (
    id bigint generated always as identity primary key,
    tracked_repository_id uuid not null,
    repository_id uuid,
    old_priority text,
    new_priority text not null,
    old_is_workspace_repo boolean,
    is_workspace_repo boolean not null,
    workspace_count integer not null,
    trigger text not null constraint repository_priority_changes_trigger_check check (
        trigger in (
            'event', 'sweep', 'resync', 'start', 'reconnect', 'signal', 'overflow', 'manual', 'pin',
            'migration', 'rollback'
        )
    ),
    changed_at timestamptz not null default clock_timestamp(),
    -- Dispatching. A row is pending until it has been dispatched or given up; a claim that is never
    -- finished (its holder died) runs out and is taken over.
    claimed_by uuid,
    claimed_at timestamptz,
    attempts integer not null default 0,
    next_attempt_at timestamptz not null default clock_timestamp(),
    last_error text,
    dispatched_at timestamptz,
    abandoned_at timestamptz
);
alter table public.repository_priority_changes enable row level security;

-- The pending rows only, oldest first: stays as small as the backlog however long the trail grows.
create index if not exists idx_repository_priority_changes_pending
on public.repository_priority_changes (id) where dispatched_at is null and abandoned_at is null;

-- The last changes of one repository.
create index if not exists idx_repository_priority_changes_repository
on public.repository_priority_changes (repository_id, id);

comment on table public.repository_priority_changes is
'Audit trail of priority changes and outbox of their announcements: one row for each change of priority or flag.';

-- ---------------------------------------------------------------------------------------------------------
-- Indexes
-- ---------------------------------------------------------------------------------------------------------

do $$
declare
    c_version constant text := '20250103000000';
begin
    if current_setting('workspace_priority.part', true) = 'columns' then
        return;
    end if;

    -- Serves the dashboard queries: distribution and inversions.
    if to_regclass('public.idx_tracked_repos_workspace_priority') is null then
        create index idx_tracked_repos_workspace_priority
        on public.tracked_repositories (is_workspace_repo, priority, tracking_enabled);
        update public.workspace_priority_migrations
        set created = created || 'index idx_tracked_repos_workspace_priority'::text where version = c_version;
    end if;

    -- Job queueing and each sync look tracked rows up by repository.
    if not exists (
        select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = 'public.tracked_repositories'::regclass
            and a.attname = 'repository_id' and i.indpred is null and i.indisvalid
    ) then
        create index idx_tracked_repos_repository_id on public.tracked_repositories (repository_id);
        update public.workspace_priority_migrations
        set created = created || 'index idx_tracked_repos_repository_id'::text where version = c_version;
    end if;
end
$$;

-- Asked for by hand: `create index if not exists` makes writers wait before it looks whether the index is there.
do $$
begin
    if current_setting('workspace_priority.part', true) = 'columns' then
        return;
    end if;

    -- The sweep compares membership with these, in repository order and without touching the table's rows.
    if to_regclass('public.idx_tracked_repos_workspace_counts') is null then
        create index idx_tracked_repos_workspace_counts
        on public.tracked_repositories (repository_id) include (workspace_count) where is_workspace_repo;
    end if;

    -- Rows that are wrong whatever the membership is: flag, count, priority and override contradict each other.
    -- Empty when all is well, so finding these costs the sweep nothing however many rows are tracked.
    -- The sweep must repeat this condition word for word, or the planner can't tell that the index serves it.
    if to_regclass('public.idx_tracked_repos_priority_drift') is null then
        create index idx_tracked_repos_priority_drift
        on public.tracked_repositories (id)
        where (
            (is_workspace_repo and workspace_count > 0 and priority = 'high' and repository_id is not null)
            or (not is_workspace_repo and workspace_count = 0 and priority = coalesce(manual_priority, 'medium'))
        ) is not true;
    end if;
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Privileges: server-side only
-- ---------------------------------------------------------------------------------------------------------

-- Supabase's default privileges give anon and authenticated every new table; plain PostgreSQL has no such roles.
do $$
declare
    v_role text;
begin
    revoke all on public.repository_priority_changes, public.workspace_priority_migrations from public;
    for v_role in select rolname from pg_roles where rolname in ('anon', 'authenticated', 'service_role') loop
        execute format(
            'revoke all on public.repository_priority_changes, public.workspace_priority_migrations from %I', v_role);
        execute format('revoke all on sequence public.repository_priority_changes_id_seq from %I', v_role);
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
        grant select, insert, update, delete on public.repository_priority_changes to service_role;
        grant select on public.workspace_priority_migrations to service_role;
    end if;
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Backfill
-- ---------------------------------------------------------------------------------------------------------

do $$
declare
    c_version constant text := '20250103000000';
    -- Before the first backfill nobody kept flags, so 'high' on a repository in a workspace says nothing about
    -- an override. Ever after, 'high' without the flag means that somebody set it.
    v_first constant boolean := not exists (
        select from public.workspace_priority_migrations where version = c_version and 'backfill' = any (created)
    );
begin
    if current_setting('workspace_priority.part', true) = 'columns' then
        return;
    end if;

    -- Repositories in a workspace. Rows that are right already are not written.
    with found as (
        select tr.id, tr.priority, tr.is_workspace_repo, m.workspaces,
            not v_first and tr.priority = 'high' and tr.is_workspace_repo is not true
                and tr.manual_priority is null as adopt
        from public.tracked_repositories tr
        join (
            select wr.repository_id, count(distinct wr.workspace_id)::integer as workspaces
            from public.workspace_repositories wr
            group by wr.repository_id
        ) m on m.repository_id = tr.repository_id
        where tr.is_workspace_repo is not true
            or tr.workspace_count is distinct from m.workspaces
            or tr.priority is distinct from 'high'
    ),
    written as (
        update public.tracked_repositories tr
        set is_workspace_repo = true,
            workspace_count = f.workspaces,
            priority = 'high',
            manual_priority = case when f.adopt then 'high' else tr.manual_priority end
        from found f
        where tr.id = f.id
        returning tr.id, tr.repository_id
    )
    -- Recorded as dispatched: the change is on record, but nobody waits for announcements of the first fill.
    insert into public.repository_priority_changes (
        tracked_repository_id, repository_id, old_priority, new_priority,
        old_is_workspace_repo, is_workspace_repo, workspace_count, trigger, dispatched_at
    )
    select w.id, w.repository_id, f.priority::text, 'high', f.is_workspace_repo, true, f.workspaces, 'migration',
        clock_timestamp()
    from written w join found f using (id)
    where f.priority is distinct from 'high' or f.is_workspace_repo is not true
    order by w.id;

    -- Repositories in no workspace: explicit overrides are remembered and unknown flags become known.
    -- Everything else about them is left to the first full resync.
    update public.tracked_repositories tr
    set is_workspace_repo = coalesce(tr.is_workspace_repo, false),
        workspace_count = coalesce(tr.workspace_count, 0),
        manual_priority = case
            when tr.priority = 'high' and tr.is_workspace_repo is not true then coalesce(tr.manual_priority, 'high')
            else tr.manual_priority
        end
    where (
            tr.is_workspace_repo is null
            or tr.workspace_count is null
            or (tr.priority = 'high' and tr.is_workspace_repo is not true and tr.manual_priority is null)
        )
        and not exists (
            select from public.workspace_repositories wr where wr.repository_id = tr.repository_id
        );

    if v_first then
        update public.workspace_priority_migrations
        set created = created || 'backfill'::text where version = c_version;
    end if;
end
$$;

-- ---------------------------------------------------------------------------------------------------------
-- Looking memberships up by repository
-- ---------------------------------------------------------------------------------------------------------

-- Last of all: building an index makes writers of its table wait until the transaction ends, and those of
-- workspace_repositories are to wait for as little as can be.
do $$
declare
    c_version constant text := '20250103000000';
begin
    if current_setting('workspace_priority.part', true) = 'columns' then
        return;
    end if;

    -- unique (workspace_id, repository_id) does not serve look-ups by repository.
    if not exists (
        select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = 'public.workspace_repositories'::regclass
            and a.attname = 'repository_id' and i.indpred is null and i.indisvalid
    ) then
        create index idx_workspace_repositories_repository_id
        on public.workspace_repositories (repository_id);
        update public.workspace_priority_migrations
        set created = created || 'index idx_workspace_repositories_repository_id'::text where version = c_version;
    end if;
end
$$;
