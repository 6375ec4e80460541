-- As in the world owner, but the publication belongs to another role, which alone may add tables to it.
alter publication supabase_realtime owner to current_user;
