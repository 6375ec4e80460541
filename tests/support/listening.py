"""A listener on a sandbox, and what it has heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import anyio

from priorityd.core.priorities import Trigger
from priorityd.core.stream.hints import Hint
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.store import open_store
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.sandbox.server import SandboxServer
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.stream.listener import Listener
from priorityd.daemon.stream.timings import Timings
from tests.support.daemon_process import eventually


class Heard:
    """What a listener passed on."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.gaps: list[Trigger] = []
        self.errors: list[str] = []


@asynccontextmanager
async def listening(
    sandbox: SandboxServer, heard: Heard, metrics: Metrics, **chosen: float
) -> AsyncIterator[Listener]:
    key = sandbox.service_role_key
    async with (
        open_store(sandbox.url, key, on_error=heard.errors.append) as store,
        anyio.create_task_group() as tasks,
    ):
        listener = Listener(
            sandbox.url,
            ApiKey(key),
            uuid4(),
            store,
            on_hint=heard.hints.append,
            on_gap=heard.gaps.append,
            metrics=metrics.stream,
            liveness=Liveness(),
            timings=Timings(**{"beat_interval_seconds": 1.0, "beat_grace_seconds": 0.7} | chosen),
        )
        tasks.start_soon(listener.run)
        await eventually(lambda: listener.state.name == "live")
        yield listener
        listener.stop()
