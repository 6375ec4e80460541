-- Workspace repositories whose priority is neither high nor critical: no row, if all is well.
with wrong as (
    select tr.repository_id, tr.priority, tr.is_workspace_repo, tr.workspace_count
    from public.tracked_repositories tr
    where tr.is_workspace_repo and (tr.priority::text in ('critical', 'high')) is not true
)
select n.name, w.*
from wrong w
left join priorityd.repository_names(array(select e.repository_id from wrong e)) n on n.repository_id = w.repository_id;
