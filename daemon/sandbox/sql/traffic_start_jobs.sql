-- Starts the most urgent queued jobs, the oldest first among equals, until the given number are running.
update public.background_jobs j
set status = 'processing', started_at = clock_timestamp()
from (
    select id from public.background_jobs
    where status = 'queued' and payload ->> 'demo' is not null
    order by (payload ->> 'priority')::integer desc, created_at, id
    limit greatest(0, %s - (select count(*) from public.background_jobs where status = 'processing' and payload ->> 'demo' is not null))
    for update skip locked
) chosen
where j.id = chosen.id;
