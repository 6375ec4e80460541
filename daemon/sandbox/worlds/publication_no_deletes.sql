-- The publication leaves deletions out: nobody hears of what left a workspace.
alter publication supabase_realtime set (publish = 'insert, update');
