-- The settings that `alter role authenticator set …` gives a session at login.
select set_config(split_part(pair, '=', 1), substr(pair, strpos(pair, '=') + 1), false)
from pg_db_role_setting s
cross join unnest(s.setconfig) as pair
where s.setrole = 'authenticator'::regrole
    and s.setdatabase in (0, (select oid from pg_database where datname = current_database()));
