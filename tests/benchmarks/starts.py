"""Releases and starts of a real daemon's jobs, and how many of either came too early.

A stand-in for Inngest starts each job a few tenths of a second after it was sent: the median is 0.26 s, as
measured on Inngest's dev server, with a realistic spread. Workspaces add and remove repositories all the
time.

A release or start is too early *by a margin* if at that time a job of a high repository had been waiting, as
a high one, for longer than the margin, and went on waiting for longer than the margin.
"""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import dataclass
from statistics import median
from typing import Any
from uuid import UUID

import anyio
import anyio.to_thread
import psycopg
from anyio.abc import TaskGroup

from tests.benchmarks.database import application
from tests.benchmarks.figures import at_most, percentile
from tests.simulation.load import Arrival, Change, Load
from tests.support.application import Application
from tests.support.daemon_process import eventually, start_daemon
from tests.support.event_api import EVENT_KEY, EventApi, serve_event_api
from tests.support.servers import start_servers
from tests.support.stack import NO_TIMER

MARGINS = (0.0, 0.1, 0.5, 1.0)
LOAD = Load(high_share=0.45, other_share=0.65, changes_per_hour=120.0)
FASTER = 60
"""Faster than the simulation: a job takes half a second, and a pair changes places twice a second."""
IN_FLIGHT = 8
DELAY_SECONDS, DELAY_SPREAD = 0.26, 0.5
LOOK_SECONDS = 0.01

_START = """
with started as (
    update background_jobs set status = 'processing', started_at = clock_timestamp() where id = %s
    returning id, started_at
)
select extract(epoch from o.released_at)::float8, extract(epoch from s.started_at)::float8
from started s join priorityd.ordered_jobs o on o.job_id = s.id
"""
_END = "update background_jobs set status = 'completed', completed_at = clock_timestamp() where id = %s"
_QUEUED = """
select b.id, b.repository_id, extract(epoch from b.created_at)::float8,
    coalesce((b.payload #>> '{metadata,promoted}')::boolean, false)
from background_jobs b
"""
_CHANGES = """
select c.repository_id, extract(epoch from c.changed_at)::float8, c.new_priority = 'high'
from repository_priority_changes c order by c.id
"""
_COUNTED = """
select (priorityd.find_job_inversions('-infinity', now(), q.queue_counted) ->> 'count')::int
from priorityd.walk_queue(null, 60) q
"""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """A job's wait: since when it had its last priority (`high` or not), and when the wait ended."""

    high: bool
    promoted: bool
    since: float
    until: float


async def starts(seconds: float) -> Json:
    """See the module's docstring; for the jobs of this number of seconds."""
    with application() as (url, app):
        api = EventApi()
        async with serve_event_api(api) as events_url, start_servers(url) as server:
            settings: dict[str, Any] = {
                "SUPABASE_URL": server.url,
                "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
                "INNGEST_EVENT_KEY": EVENT_KEY,
                "INNGEST_EVENT_API_BASE_URL": events_url,
                "PRIORITYD_JOBS_IN_FLIGHT": IN_FLIGHT,
                "PRIORITYD_DISPATCH_CHANGES": "false",
            }
            async with (
                start_daemon(**settings, **NO_TIMER),
                await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
            ):
                inngest = Inngest(api, connection)
                await inngest.work(app, seconds)
        return _summary(app, inngest.times)


class Inngest:
    """Starts the jobs that were sent, a little later, and ends them when their work is done.

    `times` has the times of each job's release and start.
    """

    def __init__(self, api: EventApi, connection: psycopg.AsyncConnection[Any]) -> None:
        self._api = api
        self._connection = connection
        self._chance = random.Random(1)
        self._seconds: dict[UUID, float] = {}
        self.times: dict[UUID, tuple[float, float]] = {}

    async def work(self, app: Application, seconds: float) -> None:
        """The load, for this time; then the released jobs still start."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._start_all, tasks)
            await anyio.to_thread.run_sync(self._load, app, seconds)
            await eventually(lambda: len(self.times) == len(self._api.runs))
            tasks.cancel_scope.cancel()

    def _load(self, app: Application, seconds: float) -> None:
        repositories = app.repositories(LOAD.repositories)
        workspaces = [app.workspace() for _ in range(LOAD.workspaces)]
        for number, key in enumerate(repositories):
            if (held_by := LOAD.workspace_of(number)) is not None:
                app.add(workspaces[held_by], key)
        app.connection.execute("select sync_workspace_priorities(%s)", (repositories,))
        began = time.monotonic()
        for event in LOAD.events(seconds * FASTER):
            time.sleep(max(began + event.at / FASTER - time.monotonic(), 0.0))
            if isinstance(event, Arrival):
                self._queue(app, repositories[event.repository], event.seconds / FASTER)
            else:
                _change(app, repositories[event.repository], event, workspaces)

    def _queue(self, app: Application, repository: UUID, seconds: float) -> None:
        row = app.connection.execute(
            "select queue_repository_jobs(%s, 'recent-prs')",
            (json.dumps([{"repository_id": str(repository)}]),),
        ).fetchone()
        assert row is not None
        self._seconds[UUID(row[0]["jobs"][0]["job_id"])] = seconds

    async def _start_all(self, tasks: TaskGroup) -> None:
        started = 0
        while True:
            for event in self._api.runs[started:]:
                started += 1
                tasks.start_soon(self._run, UUID(event["data"]["jobId"]))
            await anyio.sleep(LOOK_SECONDS)

    async def _run(self, job: UUID) -> None:
        await anyio.sleep(self._chance.lognormvariate(math.log(DELAY_SECONDS), DELAY_SPREAD))
        row = await (await self._connection.execute(_START, (job,))).fetchone()
        assert row is not None
        self.times[job] = row[0], row[1]
        await anyio.sleep(self._seconds[job])
        await self._connection.execute(_END, (job,))


def _change(app: Application, repository: UUID, change: Change, workspaces: list[UUID]) -> None:
    app.connection.execute("delete from workspace_repositories where repository_id = %s", (repository,))
    if change.workspace is not None:
        app.add(workspaces[change.workspace], repository)
    app.connection.execute("select sync_workspace_priorities(%s)", ([repository],))


def _summary(app: Application, times: dict[UUID, tuple[float, float]]) -> Json:
    jobs = app.connection.execute(_QUEUED.encode()).fetchall()
    changes: dict[UUID, list[tuple[float, bool]]] = {}
    for repository, at, high in app.connection.execute(_CHANGES.encode()).fetchall():
        changes.setdefault(repository, []).append((at, high))
    counted = app.connection.execute(_COUNTED.encode()).fetchone()
    assert counted is not None
    delays = [started - released for released, started in times.values()]
    early = {}
    for which, name in enumerate(("releases", "starts")):
        ends = {job: each[which] for job, each in times.items()}
        waits = [_wait(job, changes.get(job[1], []), ends.get(job[0], math.inf)) for job in jobs]
        early[name] = _too_early(waits)
    return {
        "jobs": len(jobs),
        "started": len(times),
        "seconds_from_release_to_start": {
            "p50": round(median(delays), 2),
            "p95": round(percentile(delays, 95), 2),
        },
        "too_early": early,
        "job_inversions": counted[0],
        "bar": at_most(early["releases"]["0.1"], 0),
    }


def _wait(job: tuple[Any, ...], changes: list[tuple[float, bool]], until: float) -> Wait:
    """A job's wait, with its repository's priority at the end of it."""
    _, _, queued_at, promoted = job
    before = [change for change in changes if change[0] <= until]
    high = bool(before) and before[-1][1]
    return Wait(high, promoted, max(queued_at, before[-1][0]) if before else queued_at, until)


def _too_early(waits: list[Wait]) -> dict[str, int]:
    ended = [each for each in waits if not each.high and not each.promoted and each.until < math.inf]
    highs = [each for each in waits if each.high]
    return {
        f"{margin:g}": sum(
            any(high.since < each.until - margin and high.until > each.until + margin for high in highs)
            for each in ended
        )
        for margin in MARGINS
    }
