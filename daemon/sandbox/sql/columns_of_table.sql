-- The columns of a table or view in public; no rows if it does not exist.
-- Types are qualified by their schema, because the search path is empty.
select a.attname::text, format_type(a.atttypid, a.atttypmod)
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relname = %s
order by a.attnum;
