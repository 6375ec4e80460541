-- Adds a random repository to a random workspace that does not have it.
with chosen as (
    select w.id as workspace_id, w.slug, r.id as repository_id, r.owner || '/' || r.name as repository
    from public.workspaces w
    cross join public.repositories r
    where not exists (
        select from public.workspace_repositories m where m.workspace_id = w.id and m.repository_id = r.id
    )
    order by random()
    limit 1
),
added as (
    insert into public.workspace_repositories (workspace_id, repository_id)
    select workspace_id, repository_id from chosen
    on conflict do nothing
    returning repository_id
)
select c.repository_id::text, c.repository, c.slug from chosen c join added using (repository_id);
