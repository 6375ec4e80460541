"""The sandbox's servers on a database of the test's own, and a raw WebSocket client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from priorityd.daemon.sandbox.server import SandboxServer, serve_sandbox
from tests.sandbox.client import Client, connect
from tests.support.faults import Faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.database import Database


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[SandboxServer]:
    """REST and Realtime on a fresh database."""
    async with serve_sandbox(database.url, faults=Faults()) as server:
        yield server


@pytest.fixture
async def client(sandbox: SandboxServer) -> AsyncIterator[Client]:
    """An open socket of service_role."""
    async with connect(sandbox) as client:
        yield client
