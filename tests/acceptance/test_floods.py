"""Floods of normal changes: memory stays bounded, calls stay few, and the result is right."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import anyio
import psutil
import pytest

from tests.support.application import Application
from tests.support.daemon_process import Daemon, eventually
from tests.support.faults import misbehave
from tests.support.stack import NO_TIMER, Stack

pytestmark = [pytest.mark.release, pytest.mark.timeout(1200)]

KEYS = 100_000
FLOOD_SECONDS = 60
PIECE = 200
MOST_GROWTH_BYTES = 50 * 1024 * 1024
"""50,000 waiting repositories, and what is imported only when it is first needed."""

DEBOUNCE_SECONDS = 0.2
A_FEW = 5
FLAPS_PER_SECOND = 200
FLAP_SECONDS = 10


@pytest.fixture
def stack(unmetered_stack: Stack) -> Stack:
    return unmetered_stack


async def at_a_rate(per_second: float, count: int, work: Callable[[int], Awaitable[Any]]) -> float:
    """Do it so many times at this rate, or as fast as it goes; returns the seconds that it took."""
    started_at = time.monotonic()
    for number in range(count):
        await work(number)
        await anyio.sleep(max(0.0, started_at + (number + 1) / per_second - time.monotonic()))
    return time.monotonic() - started_at


async def test_a_hundred_thousand_keys_in_a_minute_while_nothing_can_be_applied(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(KEYS)
    pieces = [repositories[start : start + PIECE] for start in range(0, KEYS, PIECE)]
    async with stack.daemon(**NO_TIMER) as daemon:
        process = psutil.Process(daemon.process.pid)
        before = process.memory_info().rss
        misbehave(stack.server, "rest/fail?status=503&seconds=3600")
        peak = 0

        async def add(number: int) -> None:
            nonlocal peak
            await anyio.to_thread.run_sync(app.add, workspace, *pieces[number])
            peak = max(peak, process.memory_info().rss)

        await at_a_rate(len(pieces) / FLOOD_SECONDS, len(pieces), add)
        await eventually(lambda: has_overflowed(daemon, "failed"), 120)
        assert await daemon.metric("pending_repositories") <= 50_000
        assert await daemon.answers("/livez", 200)
        misbehave(stack.server, "rest/fail?seconds=0")
        await eventually(lambda: nothing_wrong(app), 600, longest_pause=5)
        await eventually(lambda: has_overflowed(daemon, "done"))
        peak = max(peak, process.memory_info().rss)
        assert peak - before < MOST_GROWTH_BYTES


async def has_overflowed(daemon: Daemon, outcome: str) -> bool:
    """Whether it has swept instead of looking at each. While it is flooded it may answer too late."""
    if not await daemon.answers("/livez", 200):
        return False
    return await daemon.metric("resyncs_total", kind="sweep", trigger="overflow", outcome=outcome) >= 1


async def nothing_wrong(app: Application) -> bool:
    return await anyio.to_thread.run_sync(app.wrong_rows) == 0


async def test_a_repository_that_flaps_is_looked_at_a_few_times_a_second(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    async with stack.daemon(**NO_TIMER, PRIORITYD_DEBOUNCE_SECONDS=DEBOUNCE_SECONDS) as daemon:
        syncs = await daemon.metric("apply_batch_size_count")
        sweeps = await daemon.metric("resyncs_total", kind="sweep")
        seconds = await at_a_rate(
            FLAPS_PER_SECOND,
            FLAPS_PER_SECOND * FLAP_SECONDS - 1,
            lambda number: anyio.to_thread.run_sync(flap, app, workspace, repository, number),
        )
        most = seconds * (1 / DEBOUNCE_SECONDS) + A_FEW
        assert await daemon.metric("apply_batch_size_count") - syncs <= most
        assert await daemon.metric("resyncs_total", kind="sweep") - sweeps <= most
        # The last change added it, so that is what must be found.
        await eventually(lambda: app.row(repository) == ("high", True, 1))
        await eventually(lambda: nothing_pending(daemon))


async def nothing_pending(daemon: Daemon) -> bool:
    return await daemon.metric("pending_repositories") == 0


def flap(app: Application, workspace: UUID, repository: UUID, number: int) -> None:
    (app.remove if number % 2 else app.add)(workspace, repository)
