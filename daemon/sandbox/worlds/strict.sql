-- An application with constraints on every column: checks, not null, and foreign keys to a table of users. A job that ends
-- must have started, and an archived repository may not be high, so its row refuses the priority of a workspace.
create table public.users (
    id uuid primary key default gen_random_uuid(),
    email text unique
);
alter table public.users enable row level security;
insert into public.users (id, email) values ('00000000-0000-4000-8000-000000000001', 'system@example.com');

alter table public.workspaces
    alter name set default 'unnamed', alter name set not null, add check (length(name) between 1 and 100),
    alter tier set not null, add check (tier in ('free', 'pro', 'enterprise')),
    alter is_active set not null,
    alter owner_id set default '00000000-0000-4000-8000-000000000001', alter owner_id set not null,
    add foreign key (owner_id) references public.users (id);

alter table public.workspace_repositories
    alter added_by set default '00000000-0000-4000-8000-000000000001', alter added_by set not null,
    add foreign key (added_by) references public.users (id),
    alter tags set not null, add check (cardinality(tags) <= 10),
    alter is_pinned set not null,
    add updated_at timestamptz not null default now(), add check (updated_at >= added_at);

alter table public.tracked_repositories
    alter priority set not null,
    alter tracking_enabled set not null,
    alter size set default 'small', alter size set not null,
    alter sync_frequency_hours set not null, add check (sync_frequency_hours between 1 and 168),
    add check (updated_at >= created_at),
    add is_archived boolean not null default false,
    add constraint archived_is_never_high check (not (is_archived and priority = 'high'));

alter table public.background_jobs
    alter type set default 'unknown', alter type set not null,
    alter payload set not null, add check (jsonb_typeof(payload) = 'object'),
    alter retry_count set not null, alter max_retries set not null, add check (retry_count <= max_retries),
    add created_by uuid not null default '00000000-0000-4000-8000-000000000001' references public.users (id),
    add updated_at timestamptz not null default now(),
    add constraint an_end_needs_a_start check (
        (completed_at is null and failed_at is null) or (started_at is not null and coalesce(completed_at, failed_at) >= started_at)
    ),
    add constraint an_end_fits_its_status check (
        (completed_at is null or status in ('completed', 'cancelled')) and (failed_at is null or status = 'failed')
    );

create trigger set_workspace_repositories_updated_at before update on public.workspace_repositories
for each row execute function public.set_updated_at();
create trigger set_background_jobs_updated_at before update on public.background_jobs
for each row execute function public.set_updated_at();
