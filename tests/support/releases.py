"""The releaser on a real database behind the sandbox's REST surface, against the stand-in for Inngest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID, uuid4

import anyio
import pytest

from priorityd.core.jobs.events import Job
from priorityd.core.jobs.released import ReleaseLimits
from priorityd.core.vocabulary import PriorityForm
from priorityd.daemon.database.store import open_store
from priorityd.daemon.inngest.api import open_inngest_api
from priorityd.daemon.inngest.sender import open_event_sender
from priorityd.daemon.jobs.ordered_jobs import OrderedJobs
from priorityd.daemon.jobs.ordered_queue import OrderedQueue, job_id
from priorityd.daemon.jobs.releaser import Releaser
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.metrics import PREFIX
from priorityd.daemon.status.metrics import Metrics
from tests.support.application import Application
from tests.support.database import Database
from tests.support.faults import Faults as ServerFaults
from tests.support.inngest import StandIn
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers import Servers, start_servers


@dataclass
class Bench:
    """A database with an application, its REST surface, and Inngest's stand-in."""

    server: Servers
    app: Application
    inngest: StandIn

    @asynccontextmanager
    async def releaser(
        self,
        in_flight: int = 100,
        form: PriorityForm = "score",
        leader: bool = False,
        *,
        asks: bool = False,
        most_leases: int = 3,
        runs: bool = True,
    ) -> AsyncIterator[Releaser]:
        """A releaser, which runs for the length of the block."""
        self.metrics = Metrics()
        async with (
            open_store(self.server.url, self.server.service_role_key) as store,
            open_event_sender(
                self.inngest.settings(), max_attempts=1, timeout_seconds=PATIENCE_SECONDS
            ) as sender,
            open_inngest_api(self.inngest.settings()) as api,
            anyio.create_task_group() as tasks,
        ):
            releaser = Releaser(
                OrderedJobs(store, uuid4()),
                sender,
                api if asks else None,
                limits=ReleaseLimits(in_flight, 86_400, 3600, most_leases),
                form=form,
                is_leader=lambda: leader,
                metrics=self.metrics.releases,
                liveness=Liveness(),
            )
            if runs:
                tasks.start_soon(releaser.run)
            yield releaser
            tasks.cancel_scope.cancel()

    async def queue(self, *repositories: UUID, **data: object) -> list[UUID]:
        async with open_store(self.server.url, self.server.service_role_key) as store:
            jobs = [Job("recent-prs", each, "acme/web", data, uuid4().hex) for each in repositories]
            result = await OrderedQueue(store).queue_jobs(jobs)
        assert len(result.sent) == len(jobs)
        return [job_id(job) for job in jobs]

    def high(self) -> UUID:
        repository = self.app.repository()
        self.app.add(self.app.workspace(), repository)
        self.app.connection.execute("select sync_workspace_priorities(%s)", ([repository],))
        return repository

    def state(self, condition: str) -> int:
        row = self.app.connection.execute(
            f"select count(*) from priorityd.ordered_jobs where {condition}".encode()
        ).fetchone()
        assert row is not None
        number: int = row[0]
        return number

    def execute(self, statement: LiteralString, *values: object) -> None:
        self.app.connection.execute(statement, values)

    def end(self, *jobs: UUID) -> None:
        self.execute("update background_jobs set status = 'completed' where id = any (%s)", list(jobs))

    def lose(self, *jobs: UUID) -> None:
        """Their lease ends."""
        self.execute(
            "update priorityd.ordered_jobs set lease_until = clock_timestamp() where job_id = any (%s)",
            list(jobs),
        )

    def status(self, job: UUID) -> str:
        row = self.app.connection.execute(
            "select status from background_jobs where id = %s", (job,)
        ).fetchone()
        assert row is not None
        status: str = row[0]
        return status

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(PREFIX + name, labels) or 0.0

    @property
    def sent(self) -> list[UUID]:
        return [UUID(event["data"]["jobId"]) for event in self.inngest.api.runs]


@pytest.fixture
async def bench(database: Database, event_api: StandIn) -> AsyncIterator[Bench]:
    async with start_servers(database.url, faults=ServerFaults()) as server:
        yield Bench(server, Application(database.connect()), event_api)
