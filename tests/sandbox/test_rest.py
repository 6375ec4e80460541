"""The contract of PostgREST's RPCs behind Supabase's gateway, as far as a caller can notice it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from priorityd.daemon.sandbox.keys import Keys
from priorityd.daemon.sandbox.rest.errors import ApiError
from priorityd.daemon.sandbox.rest.pool import Pool
from priorityd.daemon.sandbox.server import serve_sandbox
from tests.support.daemon_process import PLAIN, eventually
from tests.support.faults import Faults, misbehave
from tests.support.patience import PATIENCE_SECONDS
from tests.upgrade.contract import CALLS, populate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from priorityd.daemon.sandbox.server import SandboxServer
    from tests.support.database import Database

_FUNCTIONS = """
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
# From the table in PostgREST's manual, and its special cases.
_STATUSES = {
    "08006": 503,
    "09000": 500,
    "0L000": 403,
    "0P000": 403,
    "21000": 500,
    "22023": 400,
    "22P02": 400,
    "23502": 400,
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "25001": 500,
    "28000": 403,
    "2D000": 500,
    "38000": 500,
    "39000": 500,
    "3B000": 500,
    "42501": 403,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "42703": 400,
    "53300": 503,
    "53400": 500,
    "54001": 500,
    "55P03": 500,
    "57014": 500,
    "57P01": 503,
    "58030": 500,
    "F0000": 500,
    "HV000": 500,
    "P0001": 400,
    "P0002": 500,
    "PT402": 402,
    "PT999": 500,
    "XX000": 500,
    "ZZ999": 400,
}
_ID = "1f899c29-cab1-47da-928c-f8f2cede25eb"

_RESULTS: list[tuple[str, dict[str, Any], str]] = [
    ("add", {"a": 1}, "11"),
    ("add", {"a": 1, "b": 2}, "3"),
    ("numbers", {"n": 3}, "[1,2,3]"),
    ("numbers", {"n": 0}, "[]"),
    ("pairs", {"n": 2}, '[{"x":1,"y":"n1"},{"x":2,"y":"n2"}]'),
    ("one_pair", {}, '{"x":1,"y":"one"}'),
    ("null_value", {}, "null"),
    ("percent", {"a%s": 5}, "5"),
    (
        "echo",
        {"value": {"a": [1, None]}, "ids": [_ID], "size": "xl"},
        f'[{{"a":[1,null]}},["{_ID}"],"xl"]',
    ),
]


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


@pytest.fixture
def functions(database: Database) -> None:
    """Functions to call; there before the servers start."""
    database.connect().execute(_FUNCTIONS.encode())


@pytest.fixture
async def http(functions: None, sandbox: SandboxServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, timeout=PATIENCE_SECONDS, verify=PLAIN) as http:
        yield http


@pytest.fixture
def api(http: httpx.AsyncClient, sandbox: SandboxServer) -> Api:
    return Api(http, sandbox.service_role_key)


@pytest.fixture
def anon(http: httpx.AsyncClient, sandbox: SandboxServer) -> Api:
    return Api(http, sandbox.anon_key)


async def test_results_are_json_in_the_shape_of_the_return_type(api: Api) -> None:
    for function, arguments, text in _RESULTS:
        response = await api.call(function, arguments)
        assert (response.status_code, response.json()) == (200, json.loads(text))
        assert response.headers["content-type"] == "application/json; charset=utf-8"


async def test_a_function_that_returns_nothing_answers_204(api: Api) -> None:
    response = await api.call("nothing")
    assert (response.status_code, response.content) == (204, b"")


async def test_sets_are_cut_at_1000_rows(api: Api) -> None:
    response = await api.call("numbers", {"n": 1500})
    assert response.json() == list(range(1, 1001))
    assert response.headers["content-range"] == "0-999/*"


async def test_a_single_object_can_be_asked_for(api: Api) -> None:
    accept = "application/vnd.pgrst.object+json"
    one = await api.call("pairs", {"n": 1}, Accept=accept)
    two = await api.call("pairs", {"n": 2}, Accept=accept)
    assert (one.status_code, one.json()) == (200, {"x": 1, "y": "n1"})
    assert (two.status_code, two.json()["code"]) == (406, "PGRST116")
    assert two.json()["details"] == "The result contains 2 rows"


async def test_every_sqlstate_has_postgrests_status(api: Api) -> None:
    for state, status in _STATUSES.items():
        response = await api.call("raise_state", {"state": state})
        assert (state, response.status_code) == (state, status)
        assert response.json() == {"code": state, "details": "more", "hint": "try", "message": "words"}
        assert response.headers["proxy-status"] == f"PostgREST; error={state}"


async def test_what_is_forbidden_is_403_and_401_for_anon(api: Api, anon: Api) -> None:
    assert (await api.call("secret")).json() == 1
    refused = await anon.call("secret")
    assert (refused.status_code, refused.json()["code"]) == (401, "42501")
    assert refused.json()["message"] == "permission denied for function secret"
    assert refused.headers["www-authenticate"] == "Bearer"


async def test_the_role_and_the_claims_are_those_of_the_token(
    api: Api, anon: Api, sandbox: SandboxServer
) -> None:
    answer = (await api.call("who")).json()
    assert (answer["role"], answer["claims"]["iss"]) == ("service_role", "supabase-sandbox")
    assert (await anon.call("who")).json()["role"] == "anon"
    user = sandbox.keys.sign({"role": "authenticated", "sub": "me", "exp": int(time.time()) + 60})
    answer = (await anon.call("who", Authorization=f"Bearer {user}")).json()
    assert (answer["role"], answer["claims"]["sub"]) == ("authenticated", "me")


async def test_without_a_bearer_token_the_caller_is_anon(api: Api) -> None:
    answer = await api.call("who", Authorization="")
    assert answer.json()["role"] == "anon"


async def test_the_gateway_wants_one_of_the_two_keys(api: Api, sandbox: SandboxServer) -> None:
    wrong = await api.call("who", apikey=Keys.create().service_role)
    assert wrong.status_code == 401
    assert wrong.json()["message"] == "Invalid API key"
    async with httpx.AsyncClient(base_url=sandbox.url, verify=PLAIN, timeout=PATIENCE_SECONDS) as http:
        missing = await http.post("/rest/v1/rpc/who")
    assert (missing.status_code, missing.json()["message"]) == (401, "No API key found in request")


async def test_the_gateway_puts_a_token_in_the_place_of_a_key_that_is_none(
    api: Api, sandbox: SandboxServer
) -> None:
    keys = sandbox.keys
    async with httpx.AsyncClient(base_url=sandbox.url, verify=PLAIN, timeout=PATIENCE_SECONDS) as http:

        async def call(key: str, **headers: str) -> httpx.Response:
            return await http.post("/rest/v1/rpc/who", headers={"apikey": key, **headers})

        assert (await call(sandbox.secret_key)).json()["role"] == "service_role"
        assert (await call(keys.publishable)).json()["role"] == "anon"
        user = keys.sign({"role": "authenticated", "sub": "me", "exp": int(time.time()) + 60})
        answer = await call(keys.publishable, Authorization=f"Bearer {user}")
        assert answer.json()["role"] == "authenticated"
        as_token = await call(sandbox.secret_key, Authorization=f"Bearer {sandbox.secret_key}")
        assert (as_token.status_code, as_token.json()["message"]) == (401, "Expected 3 parts in JWT; got 1")
        another = keys.create_secret_key()
        keys.delete_secret_key(sandbox.secret_key)
        assert (await call(another)).json()["role"] == "service_role"
        keys.delete_secret_key(another)
        assert (await call(another)).json()["message"] == "Invalid API key"


async def test_bad_tokens_are_401_with_the_reason(api: Api, sandbox: SandboxServer) -> None:
    now = int(time.time())
    sign = sandbox.keys.sign
    expired = sign({"role": "service_role", "exp": now - 40})
    unknown = sign({"role": "nosuchrole", "exp": now + 60})
    stranger = Keys.create().service_role
    for token, code, message in (
        (expired, "PGRST303", "JWT expired"),
        (sign({"nbf": now + 40}), "PGRST303", "JWT not yet valid"),
        (sign({"iat": now + 40}), "PGRST303", "JWT issued at future"),
        (sign({"exp": "soon"}), "PGRST303", "The JWT 'exp' claim must be a number"),
        (stranger, "PGRST301", "No suitable key or wrong key type"),
        ("abc", "PGRST301", "Expected 3 parts in JWT; got 1"),
        (unknown, "22023", 'role "nosuchrole" does not exist'),
    ):
        response = await api.call("who", Authorization=f"Bearer {token}")
        assert (response.status_code, response.json()["code"]) == (401, code)
        assert response.json()["message"] == message


async def test_tokens_are_taken_half_a_minute_off_and_without_expiry_or_role(
    api: Api, sandbox: SandboxServer
) -> None:
    now, sign = int(time.time()), sandbox.keys.sign
    for token, role in (
        (sign({"role": "service_role", "exp": now - 20}), "service_role"),
        (sign({"role": "service_role", "iat": now + 20, "nbf": now + 20}), "service_role"),
        (sign({"sub": "me"}), "anon"),
    ):
        answer = await api.call("who", Authorization=f"Bearer {token}")
        assert (answer.status_code, answer.json()["role"], answer.json()["claims"]["role"]) == (
            200,
            role,
            role,
        )


async def test_serialization_failures_and_deadlocks_are_tried_again(api: Api) -> None:
    for state in ("40001", "40P01"):
        answer = await api.call("third_time_lucky", {"state": state})
        assert (answer.status_code, answer.json() % 3) == (200, 0)


async def test_transactions_begin_as_function_and_caller_need_it(api: Api, database: Database) -> None:
    database.connect().execute("alter role authenticator set default_transaction_read_only = on")
    try:
        assert (await api.call("transaction")).json() == ["read committed", "off"]
        assert (await api.call("own_transaction")).json() == ["serializable", "off"]
        assert (await api.call("stable_transaction")).json() == ["read committed", "on"]
    finally:
        database.connect().execute("alter role authenticator reset default_transaction_read_only")


async def test_every_503_says_to_try_again_at_once(api: Api) -> None:
    answer = await api.call("raise_state", {"state": "53300"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "0")


async def answers(api: Api, status: int = 200, code: str | None = None) -> bool:
    answer = await api.call("add", {"a": 1})
    return answer.status_code == status and (code is None or answer.json()["code"] == code)


async def test_full_connection_slots_are_felt_until_there_is_one_again(api: Api, database: Database) -> None:
    session = database.connect()
    session.execute("alter role authenticator connection limit 0")
    try:
        session.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database()"
            " and application_name like 'postgrest%'"
        )
        await eventually(lambda: answers(api, 503, "PGRST002"))
    finally:
        session.execute("alter role authenticator connection limit -1")
    await eventually(lambda: answers(api))


async def test_arguments_must_be_those_of_the_function(api: Api) -> None:
    response = await api.call("add", {"a": 1, "c": 3})
    assert response.status_code == 404
    assert response.json() == {
        "code": "PGRST202",
        "details": "Searched for the function public.add with parameters a, c or with a single unnamed "
        "json/jsonb parameter, but no matches were found in the schema cache.",
        "hint": "Perhaps you meant to call the function public.add(a, b)",
        "message": "Could not find the function public.add(a, c) in the schema cache",
    }


async def test_an_unknown_function_comes_with_the_nearest_name(api: Api) -> None:
    response = await api.call("number")
    assert (response.status_code, response.json()["code"]) == (404, "PGRST202")
    assert (
        response.json()["message"]
        == "Could not find the function public.number without parameters in the schema cache"
    )
    assert response.json()["hint"] == "Perhaps you meant to call the function public.numbers"


async def test_overloads_that_differ_in_type_only_cannot_be_told_apart(api: Api) -> None:
    response = await api.call("overloaded", {"a": 1})
    assert (response.status_code, response.json()["code"]) == (300, "PGRST203")


async def test_a_value_of_the_wrong_type_is_400(api: Api) -> None:
    response = await api.call("echo", {"value": 1, "ids": ["no uuid"]})
    assert (response.status_code, response.json()["code"]) == (400, "22P02")


async def test_a_new_function_is_unknown_until_the_schema_is_reloaded(api: Api, database: Database) -> None:
    session = database.connect()
    session.execute("create function public.fresh() returns integer language sql as 'select 1'")
    assert (await api.call("fresh")).status_code == 404
    session.execute("notify pgrst, 'reload schema'")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await api.call("fresh")).status_code != 200:
            pass
    session.execute("drop function public.fresh()")
    gone = await api.call("fresh")
    assert (gone.status_code, gone.json()["code"]) == (404, "42883")


async def test_statement_timeouts_are_the_functions_own_or_the_roles(api: Api, anon: Api) -> None:
    assert (await api.call("patience")).json() == "8s"
    assert (await anon.call("patience")).json() == "3s"
    assert (await api.call("own_patience")).json() == "77s"
    late = await api.call("impatient")
    assert (late.status_code, late.json()["code"]) == (500, "57014")
    assert late.json()["message"] == "canceling statement due to statement timeout"


async def test_get_takes_arguments_from_the_query_and_may_not_write(api: Api) -> None:
    response = await api.request("GET", "/rest/v1/rpc/add", params={"a": "1", "b": "2"})
    assert (response.status_code, response.json()) == (200, 3)
    response = await api.request("GET", "/rest/v1/rpc/echo", params={"value": '{"a":1}', "ids": "{}"})
    assert response.json() == [{"a": 1}, [], None]
    response = await api.request("GET", "/rest/v1/rpc/echo", params={"value": "{"})
    assert (response.status_code, response.json()["code"]) == (400, "22P02")
    response = await api.request("GET", "/rest/v1/rpc/writes")
    assert (response.status_code, response.json()["code"]) == (405, "25006")
    response = await api.request("HEAD", "/rest/v1/rpc/add", params={"a": "1"})
    assert (response.status_code, response.content) == (200, b"")


async def test_other_methods_are_refused(api: Api) -> None:
    response = await api.request("PATCH", "/rest/v1/rpc/add", json={"a": 1})
    assert (response.status_code, response.json()["code"]) == (405, "PGRST101")


async def test_a_body_that_is_no_object_is_refused(api: Api) -> None:
    for body in ('{"a":', "[1]", '"a"'):
        headers = {"Content-Type": "application/json"}
        response = await api.request("POST", "/rest/v1/rpc/add", content=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "PGRST102")


async def test_what_is_not_served_says_so(api: Api) -> None:
    path = await api.request("GET", "/rest/v1/repositories/1")
    assert (path.status_code, path.json()["code"]) == (404, "PGRST125")
    assert "/rest/v1/rpc/" in path.json()["hint"]
    filtered = await api.request("POST", "/rest/v1/rpc/pairs?x=eq.1", json={"n": 2})
    assert (filtered.status_code, filtered.json()["code"]) == (400, "PGRST100")
    schema = await api.call("add", {"a": 1}, **{"Content-Profile": "private"})
    assert (schema.status_code, schema.json()["code"]) == (406, "PGRST106")


async def test_a_failed_call_leaves_nothing_behind(api: Api, database: Database) -> None:
    session = database.connect()
    session.execute(
        """create function public.half() returns void language plpgsql as $$ begin
            insert into public.repositories default values; raise exception 'no'; end $$;
        notify pgrst"""
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (response := await api.call("half")).status_code == 404:
            pass
    assert (response.status_code, response.json()["code"]) == (400, "P0001")
    assert session.execute("select count(*) from public.repositories").fetchone() == (0,)
    assert (await api.call("add", {"a": 1})).json() == 11


_LEVELS = """
create function public.level() returns text language sql stable
    as $$ select current_setting('transaction_isolation') $$;
create function public.own_level() returns text language sql stable
    set default_transaction_isolation = 'repeatable read'
    as $$ select current_setting('transaction_isolation') $$;
do $$ begin
    execute format('alter database %I set default_transaction_isolation = serializable', current_database());
end $$;
"""


async def test_the_isolation_of_a_call_is_the_function_s_own_and_never_the_database_s(
    database: Database,
) -> None:
    connection = database.connect()
    connection.execute(_LEVELS)
    populate(connection)
    async with (
        serve_sandbox(database.url, faults=Faults()) as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS) as http,
    ):
        api = Api(http, server.keys.service_role)
        assert (await api.call("level")).json() == "read committed"
        assert (await api.call("own_level")).json() == "repeatable read"
        for function, arguments in CALLS:
            answer = await api.call(function, arguments)
            assert answer.status_code == 200, (function, answer.text)


async def test_failures_can_be_asked_for(api: Api, sandbox: SandboxServer) -> None:
    failure = "rest/fail?status=503&function=add&sqlstate=PGRST001&message=gone"
    misbehave(sandbox, failure, seconds=60)
    failing = await api.call("add", {"a": 1})
    assert (failing.status_code, failing.json()["code"], failing.json()["message"]) == (
        503,
        "PGRST001",
        "gone",
    )
    assert (await api.call("numbers", {"n": 1})).status_code == 200
    misbehave(sandbox, failure, seconds=0)
    assert (await api.call("add", {"a": 1})).status_code == 200


async def test_a_pool_that_stays_busy_is_a_504(database: Database) -> None:
    pool = Pool(database.url, size=1, acquire_seconds=0.1)
    async with pool.connection():
        with pytest.raises(ApiError) as busy:
            async with pool.connection():
                pass
    assert (busy.value.status, busy.value.code) == (504, "PGRST003")
    await pool.close()


async def test_lost_connections_are_503_once(api: Api, database: Database) -> None:
    slow = [asyncio.create_task(api.call("pairs", {"n": n})) for n in range(1, 5)]
    assert {response.status_code for response in await asyncio.gather(*slow)} == {200}
    database.connect().execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'postgrest'"
        " and datname = current_database()"
    )
    answers = [await api.call("add", {"a": 1}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 200, 200]
    assert answers[0].json()["code"] in {"PGRST001", "57P01"}
