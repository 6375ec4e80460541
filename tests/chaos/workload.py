"""The application at work: random changes to its own tables, at a rate that can be changed and paused.

It knows its rows by ids that it made itself, and does not touch the memberships of others. Each operation is
one transaction that may fail: rows may be deleted, locked or poisoned, and the connection may be lost before
or after the commit. In some worlds the application also makes mischief (`tests.chaos.mischief`).
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from priorityd.daemon.sandbox.worlds import PLAIN
from tests.chaos.database import connect
from tests.chaos.mischief import MISCHIEF, NO_OVERRIDES

_WORKSPACES: Final = 30
_REPOSITORIES: Final = 800
_RETRY_SECONDS: Final = 0.05

_FOUND = "insert into workspaces (id) values (%s) on conflict do nothing"
_CREATE = "insert into repositories (id) values (%s) on conflict do nothing"
_TRACK = "insert into tracked_repositories (repository_id) values (%s) on conflict do nothing"
_TRACK_UNNAMED = "insert into tracked_repositories (repository_name) values ('named later')"
_NAME = """
update tracked_repositories set repository_id = %(id)s
where id = (select id from tracked_repositories where repository_id is null limit 1)
and not exists (select from tracked_repositories where repository_id = %(id)s)
"""
_UNNAME = "update tracked_repositories set repository_id = null where repository_id = %s"
_ADD = (
    "insert into workspace_repositories (workspace_id, repository_id) values (%s, %s) on conflict do nothing"
)
_REMOVE = "delete from workspace_repositories where workspace_id = %s and repository_id = %s"
_REMOVE_ANY = """
delete from workspace_repositories where id = (
    select id from workspace_repositories where workspace_id = any (%s) offset %s limit 1
)
"""
_EXCHANGE = """
update workspace_repositories set repository_id = %(id)s
where id = (select id from workspace_repositories w where workspace_id = %(workspace)s and not exists (
    select from workspace_repositories o where o.workspace_id = w.workspace_id and o.repository_id = %(id)s
) limit 1)
"""
_PIN = """
with pinned as (select public.set_manual_priority(%(id)s, %(priority)s))
insert into chaos_manual (tracked_id, priority, by_application)
select t.id, %(priority)s, false from tracked_repositories t, pinned where t.repository_id = %(id)s
on conflict (tracked_id) do update set priority = excluded.priority, by_application = excluded.by_application
"""
# The application's own way to prefer a repository: what it sets outside workspaces is a manual priority.
_OVERRIDE = """
with set_high as (
    update tracked_repositories set priority = 'high'
    where repository_id = %s and is_workspace_repo is not true
    and manual_priority is null and priority <> 'high'
    and not exists (
        select from workspace_repositories w where w.repository_id = tracked_repositories.repository_id
    )
    returning id, priority
)
insert into chaos_manual (tracked_id, priority, by_application)
select id, 'high', true from set_high where priority = 'high'
on conflict (tracked_id) do update set priority = excluded.priority, by_application = excluded.by_application
"""


class Workload:
    """See the module's docstring.

    `operations` counts what was committed, `refused` what was not; `busy_seconds` is the time it was working.
    """

    def __init__(self, url: str, chance: random.Random, world: str = PLAIN) -> None:
        self._url = url
        self._mischief = MISCHIEF.get(world, ())
        self._overrides = world not in NO_OVERRIDES
        self._random = chance
        self._workspaces = [self._new_id() for _ in range(_WORKSPACES)]
        self._repositories = [self._new_id() for _ in range(_REPOSITORIES // 4)]
        self._may_run = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.per_second = 100.0
        self.operations = 0
        self.refused = 0
        self.busy_seconds = 0.0
        self._since = 0.0
        self._next_at = 0.0

    @property
    def repositories(self) -> list[UUID]:
        """The repositories that it works with; some may be deleted."""
        return self._repositories

    @property
    def workspaces(self) -> list[UUID]:
        """The workspaces that it works with."""
        return self._workspaces

    async def pause(self) -> None:
        """Return when nothing is being changed any more, and nothing will be."""
        self._may_run.clear()
        self.busy_seconds += time.monotonic() - self._since
        await self._idle.wait()

    def go_on(self, per_second: float) -> None:
        """Work at this rate."""
        self.per_second = per_second
        self._since = self._next_at = time.monotonic()
        self._may_run.set()

    async def run(self) -> None:
        """Work until cancelled, over any number of lost connections."""
        while True:
            try:
                async with await connect(self._url) as connection:
                    await self._begin(connection)
                    await self._work(connection)
            except psycopg.Error:
                self.refused += 1
                self._idle.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _begin(self, connection: AsyncConnection[Any]) -> None:
        for workspace in self._workspaces:
            await connection.execute(_FOUND, (workspace,))
        for repository in self._repositories:
            await connection.execute(_CREATE, (repository,))
            await connection.execute(_TRACK, (repository,))

    async def _work(self, connection: AsyncConnection[Any]) -> None:
        while True:
            self._idle.set()
            await self._may_run.wait()
            await self._wait_for_turn()
            if not self._may_run.is_set():
                continue
            self._idle.clear()
            try:
                await self._change(connection)
                self.operations += 1
            except psycopg.OperationalError:
                if connection.closed:
                    raise
                self.refused += 1
            except psycopg.Error:
                self.refused += 1

    async def _wait_for_turn(self) -> None:
        # Counted from when the last one was due, since the time that operations take would lower the rate.
        # What could not be done while the database was away is not made up for.
        now = time.monotonic()
        due_at = max(self._next_at, now - 1.0) + self._random.expovariate(self.per_second)
        self._next_at = due_at
        await asyncio.sleep(max(0.0, due_at - now))

    async def _change(self, connection: AsyncConnection[Any]) -> None:
        operations = {
            self._add: 40,
            self._remove: 30,
            self._exchange: 4,
            self._move: 4,
            self._replace_workspace: 2,
            self._create: 5,
            self._delete: 2,
            self._track: 3,
            self._track_unnamed: 3,
            self._name: 4,
            self._unname: 1,
            self._pin: 3,
            self._override: 3 if self._overrides else 0,
            self._do_mischief: 6 if self._mischief else 0,
        }
        (operation,) = self._random.choices(list(operations), list(operations.values()))
        await operation(connection)

    async def _add(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_ADD, (self._workspace(), self._repository()))

    async def _remove(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_REMOVE_ANY, (self._workspaces, self._random.randrange(_REPOSITORIES // 2)))

    async def _exchange(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_EXCHANGE, {"workspace": self._workspace(), "id": self._repository()})

    async def _move(self, connection: AsyncConnection[Any]) -> None:
        """Move a repository to another workspace in one transaction; half of the time it is rolled back."""
        repository = self._repository()
        async with connection.transaction(force_rollback=self._random.random() < 0.5):
            await connection.execute(_REMOVE, (self._workspace(), repository))
            await connection.execute(_ADD, (self._workspace(), repository))

    async def _replace_workspace(self, connection: AsyncConnection[Any]) -> None:
        place = self._random.randrange(_WORKSPACES)
        await connection.execute("delete from workspaces where id = %s", (self._workspaces[place],))
        self._workspaces[place] = self._new_id()
        await connection.execute(_FOUND, (self._workspaces[place],))

    async def _create(self, connection: AsyncConnection[Any]) -> None:
        """Add a new repository to a workspace at once; it may be tracked later."""
        if len(self._repositories) < _REPOSITORIES:
            self._repositories.append(self._new_id())
            await connection.execute(_CREATE, (self._repositories[-1],))
            await connection.execute(_ADD, (self._workspace(), self._repositories[-1]))

    async def _delete(self, connection: AsyncConnection[Any]) -> None:
        repository = self._repositories.pop(self._random.randrange(len(self._repositories)))
        self._repositories.append(self._new_id())
        await connection.execute("delete from repositories where id = %s", (repository,))
        await connection.execute(_CREATE, (self._repositories[-1],))

    async def _track(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_TRACK, (self._repository(),))

    async def _track_unnamed(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_TRACK_UNNAMED)

    async def _name(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_NAME, {"id": self._repository()})

    async def _unname(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_UNNAME, (self._repository(),))

    async def _pin(self, connection: AsyncConnection[Any]) -> None:
        priority = self._random.choice(["high", "medium", "low", None])
        await connection.execute(_PIN, {"id": self._repository(), "priority": priority})

    async def _override(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_OVERRIDE, (self._repository(),))

    async def _do_mischief(self, connection: AsyncConnection[Any]) -> None:
        """Do something that only applications of this world do."""
        values = {"workspace": self._workspace(), "repository": self._repository()}
        await connection.execute(self._random.choice(self._mischief).encode(), values)

    def _workspace(self) -> UUID:
        return self._random.choice(self._workspaces)

    def _repository(self) -> UUID:
        return self._random.choice(self._repositories)

    def _new_id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)
