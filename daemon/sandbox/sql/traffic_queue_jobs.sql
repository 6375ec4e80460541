-- Queues jobs for random repositories, each with its repository's current priority. They are marked as demo jobs, because
-- only those are run by the demo's workers: users of the sandbox queue jobs of their own.
insert into public.background_jobs (type, repository_id, payload)
select 'capture/repository.sync.graphql', tr.repository_id,
    jsonb_build_object('demo', true, 'priority', case tr.priority when 'high' then 100 when 'low' then 25 else 50 end)
from public.tracked_repositories tr
where tr.repository_id is not null
order by random()
limit %s;
