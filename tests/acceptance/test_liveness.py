"""Liveness and the watchdog come from work that goes on, and from nothing else."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import anyio

from tests.support.daemon_process import Daemon, eventually
from tests.support.stack import Stack

WATCHDOG_SECONDS = 0.5
BLOCK_SECONDS = 6


async def test_a_blocked_event_loop_is_neither_alive_nor_feeds_the_watchdog(
    stack: Stack, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        settings = {
            "NOTIFY_SOCKET": tmp_path / "notify",
            "WATCHDOG_USEC": int(WATCHDOG_SECONDS * 1_000_000),
            "BLOCK_SECONDS": BLOCK_SECONDS,
        }
        async with stack.daemon(module="tests.support.blockable_daemon", **settings) as daemon:
            await eventually(lambda: _signs_of_life(manager))
            assert await _is_alive(daemon)
            daemon.process.send_signal(signal.SIGUSR1)
            await eventually(lambda: _is_dead(daemon))
            _signs_of_life(manager)
            await anyio.sleep(2 * WATCHDOG_SECONDS)
            assert _signs_of_life(manager) == 0, "systemd would restart it"
            await eventually(lambda: _is_alive(daemon), 2 * BLOCK_SECONDS)
            await eventually(lambda: _signs_of_life(manager))


def _signs_of_life(manager: socket.socket) -> int:
    """How many arrived since the last look."""
    count = 0
    try:
        while True:
            count += manager.recv(4096).decode().splitlines().count("WATCHDOG=1")
    except BlockingIOError:
        return count


async def _is_alive(daemon: Daemon) -> bool:
    with anyio.move_on_after(1):
        response = await daemon.get("/livez")
        return response is not None and response.status_code == 200
    return False


async def _is_dead(daemon: Daemon) -> bool:
    return not await _is_alive(daemon)
