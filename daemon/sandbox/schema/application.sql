-- The application's tables, as far as priorities concern them.
-- Row level security is on everywhere and there are no policies, so only service_role sees rows.
-- Every column except the keys is nullable or has a default, so a row can be inserted with its keys alone.
do $$
begin
    if not exists (
        select from pg_type t join pg_namespace n on n.oid = t.typnamespace
        where n.nspname = 'public' and t.typname = 'repository_priority'
    ) then
        create type public.repository_priority as enum ('high', 'medium', 'low');
    end if;
    if not exists (
        select from pg_type t join pg_namespace n on n.oid = t.typnamespace
        where n.nspname = 'public' and t.typname = 'repository_size'
    ) then
        create type public.repository_size as enum ('small', 'medium', 'large', 'xl');
    end if;
end
$$;

create table if not exists public.repositories (
    id uuid primary key default gen_random_uuid(),
    owner text,
    name text,
    unique (owner, name)
);

create table if not exists public.workspaces (
    id uuid primary key default gen_random_uuid(),
    name text,
    slug text unique,
    owner_id uuid,
    tier text default 'free',
    is_active boolean default true,
    created_at timestamptz not null default now()
);

create table if not exists public.workspace_repositories (
    id uuid primary key default gen_random_uuid(),
    workspace_id uuid not null references public.workspaces (id) on delete cascade,
    repository_id uuid not null references public.repositories (id) on delete cascade,
    added_by uuid,
    added_at timestamptz not null default now(),
    notes text,
    tags text[] default '{}',
    is_pinned boolean default false,
    unique (workspace_id, repository_id)
);
create index if not exists idx_workspace_repositories_workspace on public.workspace_repositories (workspace_id);
create index if not exists idx_workspace_repositories_repository on public.workspace_repositories (repository_id);

create table if not exists public.tracked_repositories (
    id uuid primary key default gen_random_uuid(),
    repository_id uuid unique references public.repositories (id) on delete cascade,
    organization_name text,
    repository_name text,
    tracking_enabled boolean default true,
    size public.repository_size,
    priority public.repository_priority default 'medium',
    last_sync_at timestamptz,
    sync_frequency_hours integer default 24,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create or replace function public.set_updated_at() returns trigger
language plpgsql set search_path = '' as $$
begin
    new.updated_at = pg_catalog.now();
    return new;
end
$$;

drop trigger if exists set_tracked_repositories_updated_at on public.tracked_repositories;
create trigger set_tracked_repositories_updated_at
before update on public.tracked_repositories
for each row execute function public.set_updated_at();

create table if not exists public.background_jobs (
    id uuid primary key default gen_random_uuid(),
    type text,
    status text not null default 'queued'
        check (status in ('queued', 'processing', 'completed', 'failed', 'cancelled')),
    payload jsonb default '{}',
    repository_id uuid references public.repositories (id) on delete set null,
    result jsonb,
    error text,
    retry_count integer default 0,
    max_retries integer default 3,
    inngest_event_id text,
    inngest_run_id text,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    completed_at timestamptz,
    failed_at timestamptz
);

alter table public.repositories enable row level security;
alter table public.workspaces enable row level security;
alter table public.workspace_repositories enable row level security;
alter table public.tracked_repositories enable row level security;
alter table public.background_jobs enable row level security;
