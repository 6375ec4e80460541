-- Jobs of the last 7 days by priority: their time from creation to end, their success. background_jobs has no
-- priority of its own; a job has the one it was queued with, else its repository's, else medium.
select
    p.priority,
    avg(extract(epoch from j.completed_at - j.created_at)) as avg_seconds,
    percentile_cont(0.95) within group (order by extract(epoch from j.completed_at - j.created_at)) as p95_seconds,
    count(*) as job_count,
    count(*) filter (where j.status::text = 'completed') as success_count,
    count(*) filter (where j.status::text = 'failed') as failed_count,
    round(
        100.0 * count(*) filter (where j.status::text = 'completed')
        / nullif(count(*) filter (where j.status::text in ('completed', 'failed')), 0),
        1
    ) as success_percent
from public.background_jobs j
left join public.tracked_repositories tr on tr.repository_id = j.repository_id
cross join lateral (
    select coalesce(
        priorityd.queued_priority(priorityd.priority_word(priorityd.parsed_payload(j.payload))),
        priorityd.job_priority(tr.priority::text, tr.is_workspace_repo)
    ) as priority
) p
where j.created_at > now() - interval '7 days'
group by p.priority
order by array_position(array['high', 'medium', 'low'], p.priority);
