"""Breakages that affect only one thing, so that everything else must go on as if nothing had happened.

Each is in force alone. Meanwhile a repository that is not affected joins and leaves a workspace, and each of
these changes must be applied within the limit; otherwise the run reports trouble.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID, uuid4

from tests.chaos import leaders
from tests.chaos.breakages import poisoned, rows_locked
from tests.chaos.database import insist
from tests.chaos.fleet import LIVE_SECONDS
from tests.chaos.floods import in_background
from tests.chaos.world import World
from tests.support.daemon_process import eventually

LIMIT_SECONDS: Final = 30.0
PARKED_WITHIN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02
_PAUSE_SECONDS: Final = 0.5

_PREPARE = """
with r as (insert into repositories (id) values (%(repository)s) on conflict do nothing),
t as (
    insert into tracked_repositories (repository_id) values (%(repository)s) on conflict do nothing
)
insert into workspaces (id) values (%(workspace)s) on conflict do nothing
"""
_ADD = (
    "insert into workspace_repositories (workspace_id, repository_id) values (%(workspace)s, %(repository)s)"
    " on conflict do nothing"
)
_REMOVE = "delete from workspace_repositories where workspace_id = %(workspace)s"
_IS = """
select bool_and((priority::text, is_workspace_repo, workspace_count) = (%(priority)s, %(flag)s, %(count)s))
from tracked_repositories where repository_id = %(repository)s
"""


@asynccontextmanager
async def rows_locked_for_long(world: World) -> AsyncIterator[None]:
    async with rows_locked(world), _others_unharmed(world):
        yield


@asynccontextmanager
async def row_poisoned_and_parked(world: World) -> AsyncIterator[None]:
    """A row that can't be written, at least until it is parked and reported, which takes at most a minute."""
    ids = {"repository": uuid4(), "workspace": uuid4()}
    await insist(world.url, _PREPARE, ids)
    async with poisoned(world, ids["repository"]), _others_unharmed(world):
        await insist(world.url, _ADD, ids)
        started_at = time.monotonic()
        while str(ids["repository"]) not in await world.fleet.parked():
            if time.monotonic() - started_at > PARKED_WITHIN_SECONDS:
                world.fleet.note(f"a poisoned repository was not parked within {PARKED_WITHIN_SECONDS} s")
                break
            await asyncio.sleep(_POLL_SECONDS)
        yield


@asynccontextmanager
async def leader_killed(world: World) -> AsyncIterator[None]:
    """The leader dies; another daemon, or its replacement, takes over."""
    fleet = world.fleet
    dead = await eventually(lambda: leaders.leader(fleet), leaders.TAKEOVER_SECONDS)
    await fleet.kill(next(place for place, daemon in fleet.running.items() if daemon is dead))
    seconds = await leaders.seconds_without(fleet, dead)
    if seconds is None:
        fleet.note(f"nobody took the timer work over within {leaders.TAKEOVER_SECONDS} s")
    world.takeover_seconds.append(seconds or leaders.TAKEOVER_SECONDS)
    yield


@asynccontextmanager
async def _others_unharmed(world: World) -> AsyncIterator[None]:
    # Otherwise a stream cut by an earlier fault would be blamed on this one.
    await eventually(world.fleet.all_live, LIVE_SECONDS)
    ids = {"repository": uuid4(), "workspace": uuid4()}
    await insist(world.url, _PREPARE, ids)
    async with in_background(_join_and_leave(world, ids)):
        yield


async def _join_and_leave(world: World, ids: dict[str, UUID]) -> None:
    in_workspace = {"priority": "high", "flag": True, "count": 1}
    outside = {"priority": "medium", "flag": False, "count": 0}
    while True:
        for statement, expected in ((_ADD, in_workspace), (_REMOVE, outside)):
            await insist(world.url, statement, ids)
            await _time(world, lambda expected=expected: insist(world.url, _IS, ids | expected))  # type: ignore[misc]
            await asyncio.sleep(_PAUSE_SECONDS)


async def _time(world: World, is_right: Callable[[], Any]) -> None:
    started_at = time.monotonic()
    while await is_right() != [(True,)]:
        if time.monotonic() - started_at > LIMIT_SECONDS:
            world.fleet.note(f"a change that no fault concerned was not applied within {LIMIT_SECONDS} s")
            break
        await asyncio.sleep(_POLL_SECONDS)
    world.unharmed_seconds.append(time.monotonic() - started_at)
