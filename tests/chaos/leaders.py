"""The leader: at most one daemon at a time, and another soon after it has died."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from tests.chaos.fleet import Fleet
from tests.support.daemon_process import Daemon

TAKEOVER_SECONDS: Final = 30.0
"""Twice what is promised: a machine on which everything is tested at once is late to renew, and to answer."""
_POLL_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 2.0


async def watch(fleet: Fleet) -> None:
    """Report trouble whenever two daemons are leaders at the same time, until cancelled."""
    while True:
        daemons = list(fleet.running.values())
        before = await _leaders(daemons)
        if len(before) > 1:
            # They are asked one after the other: two are leaders at once only if the first still is one.
            after = await _leaders(daemons)
            if len([daemon for daemon in before if daemon in after]) > 1:
                fleet.note("two daemons were leaders at the same time")
        await asyncio.sleep(_POLL_SECONDS)


async def leader(fleet: Fleet) -> Daemon | None:
    """The leader, if there is one."""
    return next(iter(await _leaders(list(fleet.running.values()))), None)


async def seconds_without(fleet: Fleet, dead: Daemon | None) -> float | None:
    """How many seconds it takes until another daemon is leader; None if it takes too long."""
    started_at = time.monotonic()
    while time.monotonic() - started_at < TAKEOVER_SECONDS:
        found = await leader(fleet)
        if found is not None and found is not dead:
            return time.monotonic() - started_at
        await asyncio.sleep(_POLL_SECONDS / 10)
    return None


async def _leaders(daemons: list[Daemon]) -> list[Daemon]:
    answers = await asyncio.gather(*(_is_leader(daemon) for daemon in daemons))
    return [daemon for daemon, is_leader in zip(daemons, answers, strict=True) if is_leader]


async def _is_leader(daemon: Daemon) -> bool:
    """Whether this daemon says that it is the leader; a stopped one does not."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            response = await daemon.get("/status")
    except TimeoutError:
        return False
    return response is not None and response.is_success and response.json()["leader"] is True
