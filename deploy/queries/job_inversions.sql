-- Jobs of the last hour that started a second or more before one of a higher priority that was queued no later: how many,
-- and pairs.
select
    (found ->> 'count')::bigint as inversions,
    pair ->> 'job_id' as job_id,
    pair ->> 'name' as name,
    pair ->> 'repository_id' as repository_id,
    pair ->> 'priority' as priority,
    pair ->> 'waiting_job_id' as waiting_job_id,
    pair ->> 'waiting_name' as waiting_name,
    pair ->> 'waiting_repository_id' as waiting_repository_id,
    pair ->> 'waiting_priority' as waiting_priority
from priorityd.walk_queue(null, 60) q
cross join lateral priorityd.find_job_inversions(
    now() - interval '1 hour', now(), q.queue_counted || q.queue_walk, 100
) found
left join lateral jsonb_array_elements(found -> 'sample') pair on true;
