"""Demo changes and demo jobs.

Repositories join and leave workspaces, and now and then a whole workspace is deleted. As many jobs are queued
with their repository's priority, and run by workers that take the most urgent ones first; a few fail.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, OperationalError

from priorityd.daemon.sandbox.queries import query

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Of 100 changes: memberships added, memberships removed, workspaces deleted and recreated.
_ADDED, _REMOVED = 55, 43
_RETRY_SECONDS = 1.0
_JOB_PERIOD_SECONDS = 1.0
_BURST_CHANCE = 0.2
# A quarter of the running jobs ends each period, so four workers for each job per second would just suffice.
_WORKERS_PER_JOB = 5


class Traffic:
    """Makes `per_second` changes per second until cancelled, and reports each."""

    def __init__(self, url: str, per_second: float, report: Callable[[dict[str, Any]], None]) -> None:
        self._url = url
        self._per_second = per_second
        self._pause_seconds = 1 / per_second
        self._report = report
        self._random = random.Random()  # noqa: S311 - a demonstration

    async def run(self) -> None:
        """Make changes and jobs, reconnecting as often as necessary."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._connected(self._change_for_ever))
            tasks.create_task(self._connected(self._work_for_ever))

    async def _connected(self, act: Callable[[AsyncConnection[Any]], Awaitable[None]]) -> None:
        while True:
            try:
                async with await AsyncConnection.connect(self._url, autocommit=True) as connection:
                    await act(connection)
            except OperationalError:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _work_for_ever(self, connection: AsyncConnection[Any]) -> None:
        owed = 0.0
        workers = max(1, round(_WORKERS_PER_JOB * self._per_second))
        while True:
            await asyncio.sleep(_JOB_PERIOD_SECONDS)
            owed += self._per_second * _JOB_PERIOD_SECONDS
            # In bursts, so that a queue builds up and drains.
            if self._random.random() < _BURST_CHANCE:
                await connection.execute(query("traffic_queue_jobs"), (int(owed),))
                owed -= int(owed)
            await connection.execute(query("traffic_end_jobs"))
            await connection.execute(query("traffic_start_jobs"), (workers,))

    async def _change_for_ever(self, connection: AsyncConnection[Any]) -> None:
        while True:
            await asyncio.sleep(self._pause_seconds)
            await self._change(connection)

    async def _change(self, connection: AsyncConnection[Any]) -> None:
        chance = self._random.randrange(100)
        if chance < _ADDED:
            await self._membership(connection, "added", "traffic_add")
        elif chance < _ADDED + _REMOVED:
            await self._membership(connection, "removed", "traffic_remove")
        else:
            await self._workspace(connection)

    async def _membership(self, connection: AsyncConnection[Any], action: str, name: str) -> None:
        row = await (await connection.execute(query(name))).fetchone()
        if row is not None:
            names = ("repository_id", "repository", "workspace")
            self._report({"event": action} | dict(zip(names, row, strict=True)))

    async def _workspace(self, connection: AsyncConnection[Any]) -> None:
        row = await (await connection.execute(query("traffic_workspace"))).fetchone()
        if row is not None:
            self._report({"event": "workspace_deleted", "workspace": row[1]})
            await connection.execute("insert into public.workspaces (name, slug) values (%s, %s)", row)
