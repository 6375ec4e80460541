-- The settings made by `alter role … set …` for the API roles, as far as any user may change them. Nobody logs in as these
-- roles, so PostgREST applies the settings in each transaction.
select r.rolname::text, split_part(pair, '=', 1), substr(pair, strpos(pair, '=') + 1)
from pg_db_role_setting s
join pg_roles r on r.oid = s.setrole
cross join unnest(s.setconfig) as pair
join pg_settings g on g.name = split_part(pair, '=', 1) and g.context = 'user'
where r.rolname <> 'authenticator'
    and s.setdatabase in (0, (select oid from pg_database where datname = current_database()));
