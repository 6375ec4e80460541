"""The sandbox that the listener listens to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.database import Database
from tests.support.faults import Faults
from tests.support.servers import Servers, start_servers


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Servers]:
    async with start_servers(database.url, faults=Faults()) as sandbox:
        yield sandbox
