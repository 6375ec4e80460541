-- Like the world owner, but the publication belongs to another role, and only that role may add tables to it.
alter publication supabase_realtime owner to current_user;
