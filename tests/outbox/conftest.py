"""Shared by the tests of the outbox."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.application import Application
from tests.support.database import Database
from tests.support.dispatching import Bench
from tests.support.faults import Faults as ServerFaults
from tests.support.inngest import StandIn
from tests.support.servers import start_servers


@pytest.fixture
async def bench(database: Database, event_api: StandIn) -> AsyncIterator[Bench]:
    async with start_servers(database.url, faults=ServerFaults()) as server:
        bench = Bench(server, Application(database.connect()), event_api)
        bench.app.connection.execute("select open_priority_outbox()")
        yield bench
