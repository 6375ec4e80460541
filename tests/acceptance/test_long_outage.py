"""Ten minutes without Supabase: the daemon stays, says that it is alive, and goes on by itself afterwards."""

from __future__ import annotations

import time
from typing import Final

import anyio
import pytest

from tests.support.daemon_process import Daemon, eventually
from tests.support.proxy import serve_proxy
from tests.support.stack import Stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

OUTAGE_SECONDS: Final = 600
RECOVERY_SECONDS: Final = 30
POLL_SECONDS: Final = 1


async def test_ten_minutes_without_supabase_end_nothing(stack: Stack) -> None:
    app = stack.app
    workspace, first, missed = app.workspace(), app.repository(), app.repository()
    async with (
        serve_proxy(int(stack.server.url.rpartition(":")[2])) as proxy,
        stack.daemon(SUPABASE_URL=f"http://127.0.0.1:{proxy.port}") as daemon,
    ):
        app.add(workspace, first)
        await eventually(lambda: app.row(first)[0] == "high")
        # First nothing listens; then packets vanish silently, so every call takes its full time-out.
        await proxy.set("refused", on=True)
        app.add(workspace, missed)
        app.remove(workspace, first)
        await _stays_alive(daemon, OUTAGE_SECONDS / 2)
        await proxy.set("half_open", on=True)
        await proxy.set("refused", on=False)
        await _stays_alive(daemon, OUTAGE_SECONDS / 2)
        assert app.row(missed)[0] == "medium"
        assert await daemon.answers("/readyz", 503)
        await proxy.set("half_open", on=False)
        await eventually(lambda: app.wrong_rows() == 0, RECOVERY_SECONDS)
        await eventually(lambda: daemon.answers("/readyz", 200), RECOVERY_SECONDS)
        # The back-off is at its longest by now.
        await eventually(daemon.live, 2 * RECOVERY_SECONDS)
        app.remove(workspace, missed)
        await eventually(lambda: app.wrong_rows() == 0, RECOVERY_SECONDS)
        assert daemon.process.returncode is None


async def _stays_alive(daemon: Daemon, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert await daemon.answers("/livez", 200)
        await anyio.sleep(POLL_SECONDS)
