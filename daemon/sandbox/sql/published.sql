-- The tables of the publication.
select format('%I.%I', schemaname, tablename)::regclass::oid::bigint
from pg_publication_tables
where pubname = 'supabase_realtime';
