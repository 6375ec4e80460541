-- Triggers on tracked_repositories as applications write them: they name tables without a schema, and read and write other
-- tables for each row. By its name a row is refused ('raises SQLSTATE'), kept as it is ('keeps its priority'), silently
-- skipped ('vanishes') or slow ('takes 40 ms').
create table public.repository_activity (
    id bigint generated always as identity primary key,
    repository_id uuid,
    what text not null,
    at timestamptz not null default now()
);
alter table public.repository_activity enable row level security;

create function public.plan_next_sync() returns trigger language plpgsql as $$
declare
    v_owners bigint;
begin
    select count(distinct w.owner_id) into v_owners
    from workspace_repositories m join workspaces w on w.id = m.workspace_id
    where m.repository_id = new.repository_id;
    new.sync_frequency_hours := case when new.priority = 'high' then 6 else 24 + least(v_owners, 0) end;
    return new;
end
$$;
create trigger plan_next_sync before update on public.tracked_repositories
for each row execute function public.plan_next_sync();

create function public.guard_repository() returns trigger language plpgsql as $$
begin
    if new.priority is not distinct from old.priority then
        return new;
    end if;
    if new.repository_name like 'raises _____' then
        raise exception 'this repository % when its priority changes', new.repository_name
            using errcode = right(new.repository_name, 5);
    elsif new.repository_name = 'keeps its priority' then
        new.priority := old.priority;
    elsif new.repository_name = 'vanishes' then
        return null;
    elsif new.repository_name = 'takes 40 ms' then
        perform pg_sleep(0.04);
    end if;
    return new;
end
$$;
create trigger guard_repository before update on public.tracked_repositories
for each row execute function public.guard_repository();

create function public.note_activity() returns trigger language plpgsql as $$
begin
    insert into repository_activity (repository_id, what) values (new.repository_id, 'updated');
    return null;
end
$$;
create trigger note_activity after update on public.tracked_repositories
for each row execute function public.note_activity();
