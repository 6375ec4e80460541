-- What is queued now, by priority, and since when the oldest has been.
select
    p.priority,
    count(*) as queued,
    min(j.created_at) as oldest_created_at,
    now() - min(j.created_at) as oldest_age
from public.background_jobs j
left join public.tracked_repositories tr on tr.repository_id = j.repository_id
cross join lateral (
    select priorityd.queued_priority(j.payload::jsonb -> 'priority', tr.priority::text) as priority
) p
where j.status = 'queued'
group by p.priority
order by array_position(array['high', 'medium', 'low'], p.priority);
