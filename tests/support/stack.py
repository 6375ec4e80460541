"""A sandbox of one test: a fresh database behind the REST and Realtime stand-ins, without a daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings
from tests.support.application import Application
from tests.support.daemon_process import Daemon, priorityd, start_daemon
from tests.support.database import Database
from tests.support.faults import Faults
from tests.support.plans import UNMETERED
from tests.support.servers import Servers, start_servers

# So long that only the stream, or a sweep that it asked for, can be what put a row right.
NO_TIMER: dict[str, Any] = {"PRIORITYD_SWEEP_INTERVAL_SECONDS": 3600}


@dataclass
class Stack:
    """The sandbox's servers, and the application on its database."""

    server: Servers
    database: Database
    app: Application

    @property
    def settings(self) -> dict[str, Any]:
        return {"SUPABASE_URL": self.server.url, "SUPABASE_SERVICE_ROLE_KEY": self.server.service_role_key}

    def daemon(self, *, ready: bool = True, **settings: object) -> AbstractAsyncContextManager[Daemon]:
        return start_daemon(ready=ready, **(self.settings | settings))

    async def priorityd(self, *arguments: str, **settings: object) -> tuple[int, str, str]:
        return await priorityd(*arguments, **(self.settings | settings))


@asynccontextmanager
async def open_stack(database: Database, settings: RealtimeSettings | None = None) -> AsyncIterator[Stack]:
    """The servers on this database, for the length of the block."""
    async with start_servers(database.url, faults=Faults(), settings=settings) as server:
        yield Stack(server, database, Application(database.connect(), database.world))


@pytest.fixture
async def stack(database: Database) -> AsyncIterator[Stack]:
    async with open_stack(database) as stack:
        yield stack


@pytest.fixture
async def unmetered_stack(database: Database) -> AsyncIterator[Stack]:
    """Its quota lets every flood pass. By default Realtime is silent for up to a minute after one."""
    async with open_stack(database, UNMETERED) as stack:
        yield stack
