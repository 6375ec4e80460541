"""The sandbox's servers on a database of the test's own, and a raw WebSocket client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.sandbox.client import Client, connect
from tests.support.daemon_process import PLAIN
from tests.support.faults import Faults
from tests.support.patience import PATIENCE_SECONDS
from tests.support.rest_calls import FUNCTIONS, Api
from tests.support.servers import Servers, start_servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.database import Database


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here have the marker."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("sandbox")


@pytest.fixture
async def sandbox(database: Database) -> AsyncIterator[Servers]:
    """REST and Realtime on a fresh database."""
    async with start_servers(database.url, faults=Faults()) as server:
        yield server


@pytest.fixture
async def client(sandbox: Servers) -> AsyncIterator[Client]:
    """An open socket of service_role."""
    async with connect(sandbox) as client:
        yield client


@pytest.fixture
def functions(database: Database) -> None:
    """Functions to call; there before the servers start."""
    database.connect().execute(FUNCTIONS.encode())


@pytest.fixture
async def http(functions: None, sandbox: Servers) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, timeout=PATIENCE_SECONDS, verify=PLAIN) as http:
        yield http


@pytest.fixture
def api(http: httpx.AsyncClient, sandbox: Servers) -> Api:
    return Api(http, sandbox.service_role_key)


@pytest.fixture
def anon(http: httpx.AsyncClient, sandbox: Servers) -> Api:
    return Api(http, sandbox.anon_key)
