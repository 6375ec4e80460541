-- Jobs of the last hour that started while an older one of a higher priority was waiting: how many, and pairs.
select
    (found ->> 'count')::bigint as inversions,
    pair ->> 'job_id' as job_id,
    pair ->> 'priority' as priority,
    pair ->> 'waiting_job_id' as waiting_job_id,
    pair ->> 'waiting_priority' as waiting_priority
from priorityd.find_job_inversions(
    now() - interval '1 hour', now(), (select queue_counted || queue_walk from priorityd.job_cursor), 100
) found
left join lateral jsonb_array_elements(found -> 'sample') pair on true;
