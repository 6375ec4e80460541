-- The columns of a table or view in public, none if there is none of this name.
-- Types are qualified by their schema as far as it is not on the search path, which is empty here.
select a.attname::text, format_type(a.atttypid, a.atttypmod)
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relname = %s
order by a.attnum;
