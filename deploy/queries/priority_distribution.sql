-- Enabled repositories by flag and priority.
select
    is_workspace_repo,
    priority,
    count(*) as count,
    avg(workspace_count) as avg_workspace_count
from public.tracked_repositories
where tracking_enabled
group by is_workspace_repo, priority
order by is_workspace_repo desc, priority desc;
