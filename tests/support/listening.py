"""A listener on a sandbox, and what it has heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import UUID, uuid4

import anyio

from priorityd.core.errors import PriorityError
from priorityd.core.heartbeat import Heartbeat
from priorityd.core.priorities import Trigger
from priorityd.core.stream.hints import Hint
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.stream.listener import Listener
from priorityd.daemon.stream.timings import Timings
from tests.support.daemon_process import eventually
from tests.support.servers import Servers

_BEAT_SECONDS: Final = 0.3


class Heard:
    """What a listener passed on."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.gaps: list[Trigger] = []
        self.errors: list[str] = []


@asynccontextmanager
async def listening(
    sandbox: Servers,
    heard: Heard,
    metrics: Metrics,
    *,
    grace_seconds: float = 5.0,
    clock: DatabaseClock | None = None,
    **chosen: float,
) -> AsyncIterator[Listener]:
    key = sandbox.service_role_key
    async with (
        open_store(sandbox.url, key, on_error=heard.errors.append) as store,
        anyio.create_task_group() as tasks,
    ):
        daemon_id, heartbeat = uuid4(), Heartbeat(grace_seconds=grace_seconds)
        listener = Listener(
            sandbox.url,
            ApiKey(key),
            daemon_id,
            heartbeat,
            clock or DatabaseClock(),
            on_hint=heard.hints.append,
            on_gap=heard.gaps.append,
            metrics=metrics.stream,
            liveness=Liveness(),
            timings=Timings(**chosen),
        )
        tasks.start_soon(listener.run)
        tasks.start_soon(_beat, store, daemon_id, heartbeat)
        await eventually(lambda: listener.state.name == "live")
        yield listener
        listener.stop()
        tasks.cancel_scope.deadline = anyio.current_time() + 5


async def _beat(store: Store, daemon_id: UUID, heartbeat: Heartbeat) -> None:
    """Write the heartbeat row, as the elector does, but more often."""
    while True:
        sent_at = monotonic()
        with suppress(PriorityError):
            await store.beat(daemon_id)
            heartbeat.written(sent_at)
        await anyio.sleep(_BEAT_SECONDS)
