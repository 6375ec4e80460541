-- What is queued now, by priority, and since when the oldest has been.
select
    p.priority,
    count(*) as queued,
    min(j.created_at) as oldest_created_at,
    now() - min(j.created_at) as oldest_age
from public.background_jobs j
left join public.tracked_repositories tr on tr.repository_id = j.repository_id
cross join lateral (
    select coalesce(
        priorityd.queued_priority(priorityd.priority_word(priorityd.parsed_payload(j.payload))),
        priorityd.job_priority(tr.priority::text, tr.is_workspace_repo)
    ) as priority
) p
where j.status = 'queued'
group by p.priority
order by array_position(array['high', 'medium', 'low'], p.priority);
