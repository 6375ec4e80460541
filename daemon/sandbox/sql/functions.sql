-- The schema cache: every function that can be called by name, with its input arguments in order.
-- Types are qualified by their schema, because the search path is empty.
select
    p.proname::text as name,
    p.proretset as returns_set,
    p.prorettype = 'void'::regtype as returns_nothing,
    (t.typtype = 'c' or p.prorettype = 'record'::regtype) as returns_rows,
    p.provolatile = 'v' as is_volatile,
    coalesce(a.names, '{}') as names,
    coalesce(a.types, '{}') as types,
    coalesce(array_length(a.names, 1), 0) - p.pronargdefaults as required,
    coalesce(p.proconfig, '{}') as settings
from pg_proc p
join pg_type t on t.oid = p.prorettype
left join lateral (
    select
        array_agg(coalesce(p.proargnames[i], '') order by i) as names,
        array_agg(format_type(type_oid, null) order by i) as types
    from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality as argument(type_oid, i)
    where p.proargmodes is null or p.proargmodes[i] in ('i', 'b', 'v')
) a on true
where p.pronamespace = 'public'::regnamespace and p.prokind = 'f'
order by p.proname, p.oid;
