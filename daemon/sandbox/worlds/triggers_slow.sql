-- Every row of tracked_repositories takes 40 ms to write, as if a trigger called another service.
create function public.take_time() returns trigger language plpgsql as $$
begin
    perform pg_sleep(0.04);
    return new;
end
$$;
create trigger take_time before update on public.tracked_repositories
for each row execute function public.take_time();
