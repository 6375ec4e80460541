"""Floods of normal changes: to one repository without pause, and to thousands at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg

from tests.chaos.database import connect, insist
from tests.chaos.world import World

_FLAPS_PER_SECOND: Final = 200
_BURST: Final = 3000


@asynccontextmanager
async def flapping(world: World) -> AsyncIterator[None]:
    async with in_background(_flap(world, world.repository())):
        yield


@asynccontextmanager
async def burst(world: World) -> AsyncIterator[None]:
    """Thousands of memberships at once, and at the end their workspace is deleted."""
    workspace, ids = uuid4(), [uuid4() for _ in range(_BURST)]
    add = """
    with w as (insert into workspaces (id) values (%(workspace)s) on conflict do nothing),
    r as (insert into repositories (id) select unnest(%(ids)s::uuid[]) on conflict do nothing),
    t as (
        insert into tracked_repositories (repository_id) select unnest(%(ids)s::uuid[]) on conflict do nothing
    )
    insert into workspace_repositories (workspace_id, repository_id)
    select %(workspace)s, unnest(%(ids)s::uuid[]) on conflict do nothing
    """
    await insist(world.url, add, {"workspace": workspace, "ids": ids})
    try:
        yield
    finally:
        await insist(world.url, "delete from workspaces where id = %s", (workspace,))


async def _flap(world: World, repository: UUID) -> None:
    workspace = uuid4()
    while True:
        with contextlib.suppress(psycopg.Error):
            async with await connect(world.url) as connection:
                while True:
                    await flap_once(connection, repository, workspace)
                    await asyncio.sleep(1 / _FLAPS_PER_SECOND)
        await asyncio.sleep(1 / _FLAPS_PER_SECOND)


async def flap_once(connection: psycopg.AsyncConnection[Any], repository: UUID, workspace: UUID) -> None:
    """Add the repository to a workspace of its own, or remove it."""
    await connection.execute("insert into workspaces (id) values (%s) on conflict do nothing", (workspace,))
    removed = await connection.execute(
        "delete from workspace_repositories where workspace_id = %s and repository_id = %s",
        (workspace, repository),
    )
    if removed.rowcount == 0:
        await connection.execute(
            "insert into workspace_repositories (workspace_id, repository_id)"
            " select %s, id from repositories where id = %s",
            (workspace, repository),
        )


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have this done for the length of the block. What fails in it is raised at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
