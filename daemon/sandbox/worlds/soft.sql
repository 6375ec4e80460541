-- Nothing is ever deleted: a workspace is switched off, and a membership gets the time of its removal. So the operator
-- defines what counts as a membership before installing priorityd.
alter table public.workspaces alter is_active set not null;
alter table public.workspace_repositories
    drop constraint workspace_repositories_workspace_id_repository_id_key,
    add removed_at timestamptz;
create unique index workspace_repositories_present on public.workspace_repositories (workspace_id, repository_id)
where removed_at is null;

create schema priorityd;
create function priorityd.memberships()
returns table (workspace_id uuid, repository_id uuid)
language sql stable as $$
    select wr.workspace_id, wr.repository_id
    from public.workspace_repositories wr
    where wr.removed_at is null
        and (exists (select from public.workspaces w where w.id = wr.workspace_id and not w.is_active)) is not true
$$;
