"""A client of the REST surface, and functions for it to call."""

from __future__ import annotations

from typing import Any

import httpx

FUNCTIONS = """
create function public.raise_state(state text, words text default 'words') returns void language plpgsql as $$
begin
    raise exception using errcode = state, message = words, detail = 'more', hint = 'try';
end $$;
create function public.add(a integer, b integer default 10) returns integer language sql immutable
    as 'select a + b';
create function public.numbers(n integer) returns setof integer language sql
    as 'select generate_series(1, n)';
create function public.pairs(n integer) returns table (x integer, y text) language sql
    as $$ select i, 'n' || i from generate_series(1, n) i $$;
create function public.one_pair(out x integer, out y text) language sql as $$ select 1, 'one' $$;
create function public.nothing() returns void language sql as '';
create function public.null_value() returns jsonb language sql as 'select null::jsonb';
create function public.who() returns jsonb language sql stable as $$
    select jsonb_build_object('role', current_user, 'claims', current_setting('request.jwt.claims')::jsonb)
$$;
create function public.patience() returns text language sql stable
    as $$ select current_setting('statement_timeout') $$;
create function public.own_patience() returns text language sql stable set statement_timeout = '77s'
    as $$ select current_setting('statement_timeout') $$;
create function public.impatient() returns void language sql set statement_timeout = '50ms'
    as 'select pg_sleep(20)';
create function public.hold() returns void language plpgsql security definer as $$
begin
    lock table public.repositories;
    perform pg_sleep(0.2);
end $$;
create function public.percent("a%s" integer) returns integer language sql as 'select $1';
create function public.writes() returns void language sql as 'create table public.written ()';
create function public.echo(value jsonb, ids uuid[] default '{}', size repository_size default null)
    returns jsonb language sql immutable as 'select jsonb_build_array(value, ids, size)';
create function public.overloaded(a integer) returns integer language sql as 'select 1';
create function public.overloaded(a text) returns integer language sql as 'select 2';
create sequence public.tries;
create function public.third_time_lucky(state text) returns bigint language plpgsql as $$
begin
    if nextval('public.tries') % 3 <> 0 then
        raise exception using errcode = state, message = 'again';
    end if;
    return currval('public.tries');
end $$;
create function public.transaction() returns jsonb language sql volatile as $$
    select jsonb_build_array(
        current_setting('transaction_isolation'), current_setting('transaction_read_only')
    )
$$;
create function public.own_transaction() returns jsonb language sql volatile
    set default_transaction_isolation = 'serializable' as $$
    select jsonb_build_array(
        current_setting('transaction_isolation'), current_setting('transaction_read_only')
    )
$$;
create function public.stable_transaction() returns jsonb language sql stable as $$
    select jsonb_build_array(
        current_setting('transaction_isolation'), current_setting('transaction_read_only')
    )
$$;
create function public.secret() returns integer language sql as 'select 1';
revoke execute on function public.secret() from public, anon, authenticated;
grant execute on function public.secret() to service_role;
"""


class Api:
    """A client with a key."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self._http = http
        self.headers = {"apikey": key, "Authorization": f"Bearer {key}"}

    async def call(self, function: str, arguments: Any = None, **headers: str) -> httpx.Response:
        """Call a function by POST."""
        return await self._http.post(
            f"/rest/v1/rpc/{function}", json=arguments or {}, headers=self.headers | headers
        )

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request with the key."""
        headers = self.headers | options.pop("headers", {})
        return await self._http.request(method, path, headers=headers, **options)
