-- The tables of the publication that a binding names ('*' means any), and whether its filter can be applied:
-- the filter's column, if the role may read it, with its type. %(column)s is null without a filter.
select
    c.oid::bigint as table_oid,
    a.attname::text as column_name,
    format_type(a.atttypid, null) as column_type
from pg_publication_tables p
join pg_namespace n on n.nspname = p.schemaname
join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
left join pg_attribute a
    on a.attrelid = c.oid and a.attname = %(column)s::text and a.attnum > 0 and not a.attisdropped
    and has_column_privilege(%(role)s::text, c.oid, a.attnum, 'SELECT')
where p.pubname = 'supabase_realtime'
    and (%(schema)s::text = '*' or p.schemaname = %(schema)s::text)
    and (%(table)s::text = '*' or p.tablename = %(table)s::text)
order by c.oid;
