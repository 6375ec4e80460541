-- Row level security as strict as possible, on the tables of the world owner: forced on the owner too, with restrictive
-- policies. service_role bypasses all of it.
create policy everybody on public.workspaces using (true);
create policy everybody on public.workspace_repositories using (true);
create policy everybody on public.tracked_repositories using (true);
create policy only_active on public.workspaces as restrictive using (is_active);
create policy only_pinned on public.workspace_repositories as restrictive using (is_pinned);
create policy only_low on public.tracked_repositories as restrictive using (priority = 'low') with check (priority = 'low');
alter table public.repositories force row level security;
alter table public.workspaces force row level security;
alter table public.workspace_repositories force row level security;
alter table public.tracked_repositories force row level security;
alter table public.background_jobs force row level security;
