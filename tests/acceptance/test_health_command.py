"""`priorityd health`: alive and ready, by the exit code."""

from __future__ import annotations

from typing import Any

from priorityd.core import __version__
from tests.support.daemon_process import (
    eventually,
    free_port,
    priorityd,
    start_daemon,
)
from tests.support.stack import Stack


async def test_health_says_by_its_exit_code_whether_the_daemon_is_alive_or_ready(stack: Stack) -> None:
    async with stack.daemon() as daemon:
        for arguments in ([], ["--ready"]):
            code, out, err = await stack.priorityd("health", *arguments, PRIORITYD_HTTP_PORT=daemon.port)
            assert (code, out, err) == (0, "", "")


async def test_health_tells_alive_from_ready_while_supabase_is_down() -> None:
    nowhere = {"SUPABASE_URL": f"http://127.0.0.1:{free_port()}", "SUPABASE_SERVICE_ROLE_KEY": "a-key"}
    async with start_daemon(ready=False, **nowhere) as daemon:
        await eventually(lambda: daemon.answers("/livez", 200))
        settings: dict[str, Any] = {**nowhere, "PRIORITYD_HTTP_PORT": daemon.port}
        assert await priorityd("health", **settings) == (0, "", "")
        code, _, err = await priorityd("health", "--ready", **settings)
        assert code == 1
        assert "the first full resync has not finished" in err


async def test_health_fails_where_another_answers(stack: Stack) -> None:
    stranger = stack.server.url.rpartition(":")[2]
    code, _, err = await stack.priorityd("health", PRIORITYD_HTTP_PORT=stranger)
    assert code == 1
    assert "not priorityd" in err
    async with stack.daemon() as daemon:
        other = {"PRIORITYD_HTTP_PORT": daemon.port, "SUPABASE_URL": "https://another.supabase.co"}
        code, _, err = await stack.priorityd("health", **other)
        assert code == 1
        assert f"the priorityd of another project, priorityd/{__version__} (" in err


async def test_health_fails_where_nobody_listens(stack: Stack) -> None:
    code, _, err = await stack.priorityd("health", PRIORITYD_HTTP_PORT=free_port())
    assert code == 1
    assert "no answer at" in err
