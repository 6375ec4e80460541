"""What many reconnects leave behind is what one does."""

from __future__ import annotations

import asyncio
import gc

import psutil
import pytest

from core import listener_state
from daemon.metrics import Metrics
from daemon.sandbox.server import SandboxServer
from tests.acceptance.daemon_process import eventually
from tests.acceptance.test_troubles import disturb_server
from tests.daemon.test_listener import Heard, listening, sandbox

__all__ = ["sandbox"]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

RECONNECTS = 200
MOST_GROWTH_BYTES = 5 * 1024 * 1024
A_FEW = 6
"""What a heartbeat under way holds: a call has a connection with two ends here. A leak would be hundreds."""
ENDS = ("close?code=1012", "close?code=1000", "abort", "overrun")


@pytest.fixture
def quick_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_state, "BACKOFF_MAX_SECONDS", 0.05)


@pytest.mark.usefixtures("quick_reconnects")
async def test_two_hundred_reconnects_leave_as_much_behind_as_one(sandbox: SandboxServer) -> None:
    heard, process = Heard(), psutil.Process()
    async with listening(sandbox, heard, Metrics()) as listener:

        async def reconnect(how: str) -> None:
            gaps = len(heard.gaps)
            await disturb_server(sandbox, f"realtime/{how}")
            await eventually(lambda: len(heard.gaps) > gaps and listener.state.name == "live", 60)

        for how in ENDS:
            await reconnect(how)
        await eventually(lambda: len(asyncio.all_tasks()) < 100)
        gc.collect()
        tasks, files = len(asyncio.all_tasks()), process.num_fds()
        sockets, memory = len(process.net_connections()), process.memory_info().rss
        for number in range(RECONNECTS):
            await reconnect(ENDS[number % len(ENDS)])
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + A_FEW, 60)
        await eventually(lambda: len(process.net_connections()) <= sockets + A_FEW, 60)
        await eventually(lambda: process.num_fds() <= files + A_FEW, 60)
        gc.collect()
        assert process.memory_info().rss - memory < MOST_GROWTH_BYTES
