"""What the daemon waits for at the start, and for how long."""

from __future__ import annotations

import anyio
import pytest
from structlog.testing import capture_logs

from priorityd.core.errors import ContractError, KeyRefusedError, MissingGrantError
from priorityd.daemon.database.startup import wait_for_schema
from priorityd.daemon.database.store import open_store
from tests.support.answers import answering, http
from tests.support.daemon_process import eventually
from tests.support.stack import Stack

VERSION = http(200, {"set": 1, "works_from": 1, "units": []})
REFUSED = http(401, {"code": "PGRST301", "message": "JWSError"})
UNKNOWN = http(404, {"code": "PGRST202", "message": "Could not find the function in the schema cache"})
PAGE = http(200, b"<html>Welcome to the hotel's network</html>")
FORBIDDEN = http(403, b"<html>Forbidden</html>")


@pytest.mark.parametrize("trouble", [REFUSED, UNKNOWN, PAGE, FORBIDDEN])
async def test_what_passes_is_waited_for(trouble: bytes) -> None:
    async with answering(trouble, VERSION) as (store, _):
        await wait_for_schema(store)


@pytest.mark.parametrize(("answer", "error"), [(REFUSED, KeyRefusedError), (UNKNOWN, ContractError)])
async def test_what_does_not_pass_is_given_up(answer: bytes, error: type[Exception]) -> None:
    async with answering(answer) as (store, _):
        with pytest.raises(error):
            await wait_for_schema(store, patience_seconds=0.1)


async def test_it_waits_for_as_long_as_the_server_asks() -> None:
    busy = http(429, {"message": "Too many requests"}, "Retry-After: 60")
    with capture_logs() as logs:
        async with answering(busy) as (store, _), anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_schema, store)
            await eventually(lambda: logs)
            tasks.cancel_scope.cancel()
    assert [line["retry_in_seconds"] for line in logs] == [60]


@pytest.mark.parametrize("answer", [PAGE, FORBIDDEN])
async def test_what_is_not_supabases_is_never_given_up(answer: bytes) -> None:
    attempts = 0

    def count() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            tasks.cancel_scope.cancel()

    async with answering(answer) as (store, _), anyio.create_task_group() as tasks:
        await wait_for_schema(store, count, patience_seconds=0.0)
    assert attempts == 3


@pytest.mark.parametrize(
    ("privilege", "statements"),
    [
        ("select on workspace_repositories", "grant select on public.workspace_repositories to service_role"),
        ("update on tracked_repositories", "grant update (priority, "),
        (
            "execute on function workspace_priority_schema_version()",
            "select priorityd.grant_access()",
        ),
        ("usage on schema priorityd", "grant usage on schema priorityd to service_role"),
    ],
)
async def test_a_privilege_that_is_missing_is_told_as_what_to_type(
    stack: Stack, privilege: str, statements: str
) -> None:
    app = stack.app
    app.connection.execute(f"revoke {privilege} from service_role, public".encode())
    code, out, err = await stack.priorityd("check")
    assert code == 76, (out, err)
    assert statements in out
    assert (await stack.priorityd("sync"))[0] == 76
    typed = out.split('psql "$DATABASE_URL" -c "')[1].split('"\n')[0]
    app.connection.execute(typed.encode())
    assert (await stack.priorityd("sync"))[0] == 0, "the command that it suggests fixes it"


async def test_the_daemon_tells_the_missing_privilege_too(stack: Stack) -> None:
    stack.app.connection.execute("revoke select on workspace_repositories from service_role")
    async with open_store(stack.server.url, stack.server.service_role_key) as store:
        with pytest.raises(MissingGrantError):
            await wait_for_schema(store, patience_seconds=0.0)
