-- Tracked repositories by flag and priority, each row with the number of all memberships.
select
    coalesce(is_workspace_repo, false),
    coalesce(priority::text, 'none'),
    count(*),
    (select count(*) from public.workspace_repositories)
from public.tracked_repositories
group by 1, 2
order by 1 desc, 3 desc;
