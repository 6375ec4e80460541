-- The publication leaves deletes out, so no subscriber learns that a repository has left a workspace.
alter publication supabase_realtime set (publish = 'insert, update');
