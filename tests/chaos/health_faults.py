"""The faults of `python -m tests.chaos.health`: how each is caused, and ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import uuid4

from tests.chaos import breakages, clock, leaders
from tests.chaos.breakages import hooked, proxied
from tests.chaos.database import connect, insist
from tests.chaos.world import World
from tests.support.daemon_process import eventually
from tests.support.event_api import Faults


@dataclass
class Scene:
    """Where faults are injected: the world, and the address of the Prometheus that watches it."""

    world: World
    prometheus: str | None = None


Inject = Callable[[Scene], AbstractAsyncContextManager[None]]


def of_world(breakage: Callable[[World], AbstractAsyncContextManager[None]]) -> Inject:
    """One of the faults of `tests.chaos.faults`."""
    return lambda scene: breakage(scene.world)


@asynccontextmanager
async def inngest_down(scene: Scene) -> AsyncIterator[None]:
    """There is something to announce, and nobody who takes it."""
    scene.world.event_api.faults = Faults(reset="before")
    try:
        await insist(scene.world.url, ADD, new_ids())
        yield
    finally:
        scene.world.event_api.faults = Faults()


@asynccontextmanager
async def rows_parked(scene: Scene) -> AsyncIterator[None]:
    """A trigger refuses the row of a repository that a workspace has just taken."""
    ids = new_ids()
    async with breakages.poisoned(scene.world, ids["repository"]):
        await insist(scene.world.url, ADD, ids)
        yield


@asynccontextmanager
async def locks_held(scene: Scene) -> AsyncIterator[None]:
    """A user's transaction holds the row of a repository that a workspace has just taken."""
    ids = new_ids()
    await insist(scene.world.url, _TRACK, ids)
    async with await connect(scene.world.url) as connection, connection.transaction(force_rollback=True):
        await connection.execute(
            "select from tracked_repositories where repository_id = %(repository)s for update", ids
        )
        await insist(scene.world.url, ADD, ids)
        yield


@asynccontextmanager
async def leader_gone(scene: Scene) -> AsyncIterator[None]:
    """The other daemon leads, and is killed."""
    fleet = scene.world.fleet
    dead = await eventually(lambda: leaders.leader(fleet))
    await fleet.kill(next(place for place, daemon in fleet.running.items() if daemon is dead))
    yield


@asynccontextmanager
async def lease_stuck(scene: Scene) -> AsyncIterator[None]:
    """The leader has died, but its lease lasts: the database's clock was set back."""
    await insist(
        scene.world.url,
        "update priorityd.leases set daemon_id = gen_random_uuid(), expires_at = now() + interval '1 h'"
        " where name = 'timer'",
    )
    try:
        yield
    finally:
        await insist(scene.world.url, "delete from priorityd.leases where name = 'timer'")


_TRACK: Final = """
with r as (
    insert into repositories (id, owner, name) values (%(repository)s, 'acme', %(name)s)
    on conflict do nothing
)
insert into tracked_repositories (repository_id) values (%(repository)s) on conflict do nothing
"""


ADD: Final = """
with r as (
    insert into repositories (id, owner, name) values (%(repository)s, 'acme', %(name)s)
    on conflict do nothing
),
t as (insert into tracked_repositories (repository_id) values (%(repository)s) on conflict do nothing),
w as (insert into workspaces (id) values (%(workspace)s) on conflict do nothing)
insert into workspace_repositories (workspace_id, repository_id) values (%(workspace)s, %(repository)s)
on conflict do nothing
"""


def new_ids() -> dict[str, Any]:
    repository = uuid4()
    return {"repository": repository, "workspace": uuid4(), "name": str(repository)[:8]}


_CLOCK: Final[dict[str, Inject]] = {
    "clock an hour ahead": of_world(partial(breakages.clock_jumped, seconds=clock.HOUR_SECONDS))
}
FAULTS: Final[dict[str, Inject]] = {
    "database frozen": of_world(breakages.postgres_frozen),
    "database stopped": of_world(breakages.postgres_stopped),
    "database read-only": of_world(breakages.postgres_is_a_standby),
    "Realtime down": of_world(partial(proxied, mode="stream_refused")),
    "Realtime deaf": of_world(partial(hooked, path="realtime/silence")),
    "Realtime refusing": of_world(partial(hooked, path="realtime/refuse", close=True)),
    "Inngest down": inngest_down,
    "rows parked": rows_parked,
    "locks held": locks_held,
    "leader gone": leader_gone,
    "lease stuck": lease_stuck,
    **(_CLOCK if clock.LIBRARY is not None else {}),
}
