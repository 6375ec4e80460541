-- A sync waits 0.1 s for a row that somebody holds, no longer 1 s. Safe to apply again.
--
-- Only a call for a single row waits (see lock_tracked_repositories), and other changes wait behind it. As long as
-- a user's transaction holds a row, the daemon comes back for that row again and again, and each time everybody else was
-- held up for a second. What another daemon's sync holds is mostly free within 0.1 s; if it is not, the row is reported
-- as locked and the caller comes back, as ever.
-- A pin keeps its second, since nobody comes back for it; so do sweeps and resyncs, behind which no change waits.

insert into public.workspace_priority_migrations (version, name)
values ('20250103001000', '20250103001000_add_workspace_priority_short_waits.sql')
on conflict (version) do nothing;

-- How long is the business of the function that is called from outside; these would override it.
alter function public.apply_workspace_priorities(uuid[], text, boolean, boolean, boolean, text) reset lock_timeout;
alter function public.lock_and_write_workspace_priorities(uuid[], text, boolean, boolean, text) reset lock_timeout;

alter function public.sync_workspace_priorities(uuid[], text, boolean) set lock_timeout = '100ms';

notify pgrst, 'reload schema';
