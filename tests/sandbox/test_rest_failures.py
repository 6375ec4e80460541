"""How a failure is reported to a caller: every SQLSTATE, and a database that is full, busy or gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from priorityd.daemon.sandbox.rest.errors import ApiError
from priorityd.daemon.sandbox.rest.pool import Pool
from tests.support.daemon_process import eventually
from tests.support.faults import Faults, misbehave
from tests.support.patience import PATIENCE_SECONDS
from tests.support.rest_calls import Api
from tests.support.servers import start_servers
from tests.upgrade.contract import CALLS, populate

if TYPE_CHECKING:
    from tests.support.database import Database
    from tests.support.servers import Servers

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
        start_servers(database.url, faults=Faults()) as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS) as http,
    ):
        api = Api(http, server.keys.service_role)
        assert (await api.call("level")).json() == "read committed"
        assert (await api.call("own_level")).json() == "repeatable read"
        for function, arguments in CALLS:
            answer = await api.call(function, arguments)
            assert answer.status_code == 200, (function, answer.text)


_HELD = """
select exists (
    select from pg_locks
    where relation = 'public.repositories'::regclass and mode = 'AccessExclusiveLock' and granted
)
"""


async def test_a_statement_of_the_test_waits_for_a_call_without_stopping_it(
    api: Api, database: Database
) -> None:
    session = database.connect()
    call = asyncio.create_task(api.call("hold"))
    await eventually(lambda: session.execute(_HELD).fetchone() == (True,))
    session.execute("set lock_timeout = '20s'")
    session.execute("insert into public.repositories default values")
    assert (await call).is_success


async def test_failures_can_be_asked_for(api: Api, sandbox: Servers) -> None:
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
