-- Removes a random membership.
with removed as (
    delete from public.workspace_repositories m
    where m.id = (select id from public.workspace_repositories order by random() limit 1)
    returning m.workspace_id, m.repository_id
)
select r.id::text, r.owner || '/' || r.name, w.slug
from removed
join public.repositories r on r.id = removed.repository_id
join public.workspaces w on w.id = removed.workspace_id;
