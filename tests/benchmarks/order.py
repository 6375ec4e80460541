"""Ordered jobs: inversions compared with direct sending, days of load, releases and starts that came too
early, jobs that never report, and the cost of a release."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import anyio.to_thread

from priorityd.core.inngest.run_priority import run_priority_expression
from priorityd.core.jobs.release_policy import promote_after_seconds
from tests.benchmarks.database import application
from tests.benchmarks.releases import ReleaseSizes, releases
from tests.benchmarks.starts import starts
from tests.benchmarks.unreported import unreported
from tests.simulation.load import WORKERS, Arrival, Change, Load
from tests.simulation.queues import InngestQueue, OrderedQueue, Queue
from tests.simulation.run import Record, Workers, simulate
from tests.support.application import Application

JOBS = 10_000
DAY = 86_400.0
LOADS = {
    "90 %": Load(high_share=0.4, other_share=0.5, changes_per_hour=20.0),
    "110 %": Load(high_share=0.45, other_share=0.65, changes_per_hour=20.0),
}
"""Loads, as shares of what the workers can do; with the second, jobs wait longer than any head start."""
DAYS = {
    "90 %: 60 % high, 30 % others": Load(high_share=0.6, other_share=0.3),
    "120 %: 100 % high, 20 % others": Load(high_share=1.0, other_share=0.2),
    "120 %: 40 % high, 80 % others": Load(high_share=0.4, other_share=0.8),
}
STARTS_SECONDS = 60

Json = dict[str, Any]


async def order(scale: float = 1.0) -> Json:
    """See the module's docstring; everything is scaled down by `scale`.

    The order is the database's. The workers' time is virtual, except for `starts`.
    """
    full = ReleaseSizes()
    sizes = ReleaseSizes(
        waiting=max(round(full.waiting * scale), 20_000),
        released=max(round(full.released * scale), 500),
        beside=max(round(full.beside * scale), 5000),
    )
    jobs = max(round(JOBS * scale), 50)
    return {
        "scale": scale,
        "the_same_jobs": {
            name: await anyio.to_thread.run_sync(_inversions, load, jobs) for name, load in LOADS.items()
        },
        "a_day_of_load": {
            name: simulate(
                load, OrderedQueue(promote_after_seconds(DAY)), DAY * min(scale, 1), 2.5 * DAY * min(scale, 1)
            ).summary()
            for name, load in DAYS.items()
        },
        "starts": await starts(max(STARTS_SECONDS * scale, 6.0)),
        "unreported": await anyio.to_thread.run_sync(unreported),
        "releases": await releases(sizes),
    }


# Inversions.


def _inversions(load: Load, jobs: int) -> Json:
    head_start = InngestQueue(run_priority_expression())
    results = {
        "direct_without": _run(load, InngestQueue(""), jobs),
        "direct_with_head_start": _run(load, head_start, jobs),
    }
    with application() as (_, app):
        # The order is measured here, not how soon a commit is on disk.
        app.connection.execute("set synchronous_commit = off")
        database = DatabaseQueue(app, load)
        results["ordered"] = _run(load, database, jobs)
    answer: Json = {name: record.summary() for name, record in results.items()}
    return answer | {"workers": WORKERS, "changes_of_workspaces": database.changes - load.repositories}


def _run(load: Load, queue: Queue, jobs: int) -> Record:
    record = Record(judged_until=float("inf"))
    Workers(load, queue, record).run([*_first_jobs(load, jobs), Change(float("inf"), 0, None)])
    return record


def _first_jobs(load: Load, jobs: int) -> Iterator[Arrival | Change]:
    for event in load.events(float("inf")):
        yield event
        if isinstance(event, Arrival) and event.number == jobs - 1:
            return


class DatabaseQueue:
    """The real functions: each job is queued, released and reported on separately."""

    def __init__(self, app: Application, load: Load) -> None:
        self._app = app
        self._daemon = uuid4()
        self._repositories = app.repositories(load.repositories)
        self._workspaces = [app.workspace() for _ in range(load.workspaces)]
        self._jobs: dict[UUID, Arrival] = {}
        self._out: list[tuple[float, UUID]] = []
        self.changes = 0
        for repository in range(load.repositories):
            self.change(repository, load.workspace_of(repository))

    def add(self, job: Arrival, workspace: int | None) -> None:
        job_id = uuid4()
        self._jobs[job_id] = job
        jobs = [{"repository_id": str(self._repositories[job.repository]), "job_id": str(job_id)}]
        self._call("queue_repository_jobs(%s, 'recent-prs')", json.dumps(jobs))

    def change(self, repository: int, workspace: int | None) -> None:
        key = self._repositories[repository]
        self._app.connection.execute("delete from workspace_repositories where repository_id = %s", (key,))
        if workspace is not None:
            self._app.add(self._workspaces[workspace], key)
        self._call("sync_workspace_priorities(%s)", [key])
        self.changes += 1

    def take(self, now: float) -> tuple[Arrival, bool] | None:
        over = [heapq.heappop(self._out)[1] for _ in range(sum(each[0] <= now for each in self._out))]
        if over:
            self._app.connection.execute(
                "update background_jobs set status = 'completed' where id = any (%s)", (over,)
            )
        answer = self._call("release_ordered_jobs(%s, %s, 1)", self._daemon, WORKERS)
        if not answer["jobs"]:
            return None
        (released,) = answer["jobs"]
        job_id = UUID(released["job_id"])
        self._call("mark_jobs_sent(%s)", [job_id])
        job = self._jobs.pop(job_id)
        heapq.heappush(self._out, (now + job.seconds, job_id))
        return job, released["promoted"]

    def _call(self, call: str, *args: object) -> Any:
        row = self._app.connection.execute(f"select {call}".encode(), args).fetchone()
        assert row is not None
        return row[0]
