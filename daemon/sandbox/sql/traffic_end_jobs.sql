-- Ends about a quarter of the running jobs, chosen at random; some fail.
update public.background_jobs j
set status = chosen.status,
    completed_at = case when chosen.status = 'completed' then clock_timestamp() end,
    failed_at = case when chosen.status = 'failed' then clock_timestamp() end
from (
    select id, case when random() < 0.03 then 'failed' else 'completed' end as status
    from public.background_jobs
    where status = 'processing' and payload ->> 'demo' is not null and random() < 0.25
    for update skip locked
) chosen
where j.id = chosen.id;
