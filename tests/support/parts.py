"""The parts of a daemon in this process, none of them running, on a real database behind the REST API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.inngest_side import Senders
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.metrics import PREFIX
from priorityd.daemon.parts import Agents, Means, Shared
from priorityd.daemon.settings import Settings
from priorityd.daemon.status.metrics import Metrics
from tests.support.database import Database
from tests.support.servers import start_servers


@dataclass
class Parts:
    """What the agents share, and the agents."""

    shared: Shared
    agents: Agents
    metrics: Metrics
    means: Means

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(PREFIX + name, labels) or 0.0


def make_parts(store: Store, url: str, key: str, **chosen: Any) -> Parts:
    """Those of one more daemon."""
    settings = Settings(supabase_url=url, supabase_key=key, **chosen)
    metrics = Metrics()
    means = Means(settings, ApiKey(key), store, Senders(None, None), metrics, Liveness(), uuid4())
    shared = Shared(means)
    return Parts(shared, Agents(means, shared), metrics, means)


@pytest.fixture
async def another_daemon(database: Database) -> AsyncIterator[Callable[..., Parts]]:
    """Makes the parts of a daemon; each call makes another daemon on the same database."""
    async with (
        start_servers(database.url) as server,
        open_store(server.url, server.service_role_key) as store,
    ):
        yield lambda **chosen: make_parts(store, server.url, server.service_role_key, **chosen)


@pytest.fixture
async def parts(another_daemon: Callable[..., Parts]) -> Parts:
    """The parts of one daemon."""
    return another_daemon()
