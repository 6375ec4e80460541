"""What many reconnects leave behind is what one does."""

from __future__ import annotations

import asyncio
import gc

import psutil
import pytest

from priorityd.daemon.status.metrics import Metrics
from tests.support.daemon_process import eventually
from tests.support.faults import misbehave
from tests.support.listening import Heard, listening
from tests.support.servers import Servers

pytestmark = [pytest.mark.release, pytest.mark.timeout(600)]

RECONNECTS = 200
MOST_GROWTH_BYTES = 5 * 1024 * 1024
SOCKETS = 5
"""What listening takes: the server's own, and both ends of a WebSocket and of the heartbeat's connection."""
ENDS = ("close?code=1012", "close?code=1000", "abort", "overrun")


async def test_two_hundred_reconnects_leave_as_much_behind_as_one(sandbox: Servers) -> None:
    heard, process = Heard(), psutil.Process()
    async with listening(sandbox, heard, Metrics(), backoff_max_seconds=0.05) as listener:

        async def reconnect(how: str) -> None:
            gaps = len(heard.gaps)
            misbehave(sandbox, f"realtime/{how}")
            await eventually(lambda: len(heard.gaps) > gaps and listener.state.name == "live")

        for how in ENDS:
            await reconnect(how)
        await eventually(lambda: len(process.net_connections()) == SOCKETS)
        gc.collect()
        tasks, files, memory = len(asyncio.all_tasks()), process.num_fds(), process.memory_info().rss
        for number in range(RECONNECTS):
            await reconnect(ENDS[number % len(ENDS)])
        await eventually(lambda: len(process.net_connections()) == SOCKETS)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        await eventually(lambda: process.num_fds() <= files)
        gc.collect()
        assert process.memory_info().rss - memory < MOST_GROWTH_BYTES
