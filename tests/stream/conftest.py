"""The sandbox that the listener listens to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from priorityd.daemon.sandbox.server import SandboxServer, serve_sandbox
from tests.support.database import Database
from tests.support.faults import Faults


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[SandboxServer]:
    async with serve_sandbox(database.url, faults=Faults()) as sandbox:
        yield sandbox
