"""Liveness and the watchdog come from work that goes on, and from nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import anyio

from tests.support.daemon_process import eventually
from tests.support.service_manager import service_manager
from tests.support.stack import Stack

WATCHDOG_SECONDS = 0.5


async def test_a_blocked_event_loop_is_neither_alive_nor_feeds_the_watchdog(
    stack: Stack, tmp_path: Path
) -> None:
    fifo, address = tmp_path / "until", str(tmp_path / "notify")
    os.mkfifo(fifo)
    settings: dict[str, Any] = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": int(WATCHDOG_SECONDS * 1_000_000),
        "BLOCK_UNTIL": fifo,
    }
    with service_manager(address) as manager:
        async with stack.daemon(module="tests.support.blockable_daemon", **settings) as daemon:
            await eventually(lambda: manager.told("WATCHDOG"))
            await eventually(lambda: daemon.answers("/livez", 200))
            daemon.process.send_signal(signal.SIGUSR1)
            await eventually(lambda: daemon.answers("/livez", 503))
            seen = len(manager.told("WATCHDOG"))
            await anyio.sleep(2 * WATCHDOG_SECONDS)
            assert len(manager.told("WATCHDOG")) == seen, "systemd would restart it"
            fifo.write_bytes(b"go on")
            await eventually(lambda: daemon.answers("/livez", 200))
            await eventually(lambda: len(manager.told("WATCHDOG")) > seen)
