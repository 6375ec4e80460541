-- Workspace repositories whose priority is neither high nor critical: no row, if all is well.
select repository_id, priority, is_workspace_repo, workspace_count
from public.tracked_repositories
where is_workspace_repo and (priority::text in ('critical', 'high')) is not true;
