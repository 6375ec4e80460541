-- Workspace repositories whose priority is not high: no row, if all is well.
select repository_id, priority, is_workspace_repo, workspace_count
from public.tracked_repositories
where is_workspace_repo and priority <> 'high';
