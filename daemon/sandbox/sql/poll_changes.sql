-- Takes committed changes from the slot, which advances: they can't be read again.
select data
from pg_logical_slot_get_binary_changes(
    %(slot)s, null, %(rows)s, 'proto_version', '1', 'publication_names', 'supabase_realtime'
);
