-- What is needed to deliver changes of these tables, according to the catalog now: one row per column.
-- %(tables)s: oid[], %(roles)s: text[].
select
    c.oid::bigint as table_oid,
    c.relrowsecurity as row_security,
    n.nspname::text as table_schema,
    c.relname::text as table_name,
    a.attname::text as name,
    t.typname::text as type_name,
    format_type(a.atttypid, a.atttypmod) as type,
    coalesce(a.attnum = any(i.indkey), false) as is_primary_key,
    array(
        select r.rolname::text from pg_roles r
        where r.rolname = any(%(roles)s::text[]) and has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')
    ) as readers
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid
left join pg_index i on i.indrelid = c.oid and i.indisprimary
where c.oid = any(%(tables)s::oid[])
order by c.oid, a.attnum;
