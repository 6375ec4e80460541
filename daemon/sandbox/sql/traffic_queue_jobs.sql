-- Queues jobs for random repositories, each with the priority that its repository has now. They are marked: whoever tries
-- the sandbox queues jobs, too, and these are nobody's here.
insert into public.background_jobs (type, repository_id, payload)
select 'capture/repository.sync.graphql', tr.repository_id,
    jsonb_build_object('demo', true, 'priority', case tr.priority when 'high' then 100 when 'low' then 25 else 50 end)
from public.tracked_repositories tr
where tr.repository_id is not null
order by random()
limit %s;
