"""A dispatcher on a real database behind the sandbox's REST surface, against the stand-in for Inngest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import anyio

from priorityd.core.outbox.announcements import PRIORITY_CHANGED
from priorityd.daemon.database.store import open_store
from priorityd.daemon.inngest.sender import open_event_sender
from priorityd.daemon.jobs.ordered_queue import OrderedQueue
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.metrics import PREFIX
from priorityd.daemon.outbox.dispatcher import Dispatcher
from priorityd.daemon.outbox.outbox import Outbox
from priorityd.daemon.status.metrics import Metrics
from tests.support.application import Application
from tests.support.daemon_process import eventually
from tests.support.inngest import StandIn
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers import Servers


@dataclass
class Bench:
    """A database with an application, its REST surface, and Inngest's stand-in."""

    server: Servers
    app: Application
    inngest: StandIn

    @asynccontextmanager
    async def dispatcher(
        self, *, claim_seconds: float = 60, sending_seconds: float = PATIENCE_SECONDS, **parts: Any
    ) -> AsyncIterator[Dispatcher]:
        """A dispatcher that runs for the length of the block."""
        metrics = Metrics()
        async with (
            open_store(self.server.url, self.server.service_role_key) as store,
            open_event_sender(
                self.inngest.settings(), max_attempts=1, timeout_seconds=sending_seconds
            ) as sender,
            anyio.create_task_group() as tasks,
        ):
            dispatcher = Dispatcher(
                Outbox(store, uuid4()),
                parts.get("sender", sender),
                claim_seconds=claim_seconds,
                form="score",
                sync_new=parts.get("sync_new", True),
                queue=OrderedQueue(store) if parts.get("in_order") else None,
                metrics=metrics.outbox,
                liveness=Liveness(),
            )
            self.metrics = metrics
            tasks.start_soon(dispatcher.run)
            await eventually(lambda: dispatcher._opened)
            yield dispatcher
            tasks.cancel_scope.cancel()

    def change(self, count: int = 1) -> list[UUID]:
        """Add so many repositories to a workspace, and sync them."""
        workspace, repositories = self.app.workspace(), self.app.repositories(count)
        self.app.add(workspace, *repositories)
        self.app.connection.execute("select sync_workspace_priorities(%s)", (repositories,))
        return repositories

    def pending(self) -> int:
        return self.count("dispatched_at is null and abandoned_at is null")

    def count(self, condition: str) -> int:
        query = f"select count(*) from repository_priority_changes where {condition}"
        row = self.app.connection.execute(query.encode()).fetchone()
        assert row is not None
        number: int = row[0]
        return number

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(PREFIX + name, labels) or 0.0

    def announced(self) -> list[str]:
        """The repositories of the announcements, in the order in which they came, repeats left out."""
        return [event["data"]["repositoryId"] for event in self.inngest.api.named(PRIORITY_CHANGED)]
