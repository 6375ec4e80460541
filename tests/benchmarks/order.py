"""Jobs that wait in order: inversions beside direct sending, days of load, and releases with many waiting."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterator
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import anyio
import psycopg

from priorityd.core.inngest.run_priority import run_priority_expression
from priorityd.core.jobs.release_policy import promote_after_seconds
from priorityd.daemon.sandbox.server import serve_sandbox
from tests.benchmarks.bars import bar, spread
from tests.benchmarks.database import application
from tests.simulation.load import WORKERS, Arrival, Change, Load
from tests.simulation.queues import InngestQueue, OrderedQueue, Queue
from tests.simulation.run import Record, Workers, simulate
from tests.support.application import Application
from tests.support.daemon_process import start_daemon
from tests.support.event_api import EVENT_KEY, EventApi, serve_event_api
from tests.support.stack import NO_TIMER

JOBS = 10_000
DAY = 86_400.0
LOADS = {
    "90 %": Load(high_share=0.4, other_share=0.5, changes_per_hour=20.0),
    "110 %": Load(high_share=0.45, other_share=0.65, changes_per_hour=20.0),
}
"""Of what the workers can do; with the second one jobs come to wait for longer than any head start."""
DAYS = {
    "90 %: 60 % high, 30 % others": Load(high_share=0.6, other_share=0.3),
    "120 %: 100 % high, 20 % others": Load(high_share=1.0, other_share=0.2),
    "120 %: 40 % high, 80 % others": Load(high_share=0.4, other_share=0.8),
}
WAITING = 1_000_000
REPOSITORIES, IN_WORKSPACES, WORKSPACES = 20_000, 4_000, 200
IN_FLIGHT, BATCH, RELEASED = 1000, 100, 5000
RELEASED_BESIDE = 50_000

Json = dict[str, Any]


async def order() -> Json:
    """See the module's text. The order is the database's, the time of the workers is virtual."""
    return {
        "the_same_10000_jobs": {name: _inversions(load) for name, load in LOADS.items()},
        "a_day_of_load": {
            name: simulate(load, OrderedQueue(promote_after_seconds(DAY)), DAY, 2.5 * DAY).summary()
            for name, load in DAYS.items()
        },
        "releases": await _throughput(),
    }


# Inversions.


def _inversions(load: Load) -> Json:
    head_start = InngestQueue(run_priority_expression())
    results = {
        "direct_without": _run(load, InngestQueue("")),
        "direct_with_head_start": _run(load, head_start),
    }
    with application() as (_, app):
        database = DatabaseQueue(app, load)
        results["ordered"] = _run(load, database)
    answer: Json = {name: record.summary() for name, record in results.items()}
    return answer | {"workers": WORKERS, "changes_of_workspaces": database.changes - load.repositories}


def _run(load: Load, queue: Queue) -> Record:
    record = Record(judged_until=float("inf"))
    Workers(load, queue, record).run([*_first_jobs(load, JOBS), Change(float("inf"), 0, None)])
    return record


def _first_jobs(load: Load, jobs: int) -> Iterator[Arrival | Change]:
    for event in load.events(float("inf")):
        yield event
        if isinstance(event, Arrival) and event.number == jobs - 1:
            return


class DatabaseQueue:
    """The real functions: each job is queued, released and reported on by itself."""

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


# Throughput.


async def _throughput() -> Json:
    with application() as (url, app):
        _fill(app)
        return {
            "waiting": WAITING,
            "first_look_seconds": _timed(lambda: _release(app, 1, until_placed=True)),
            "plans": {name: _plan(app, query) for name, query in PLANS.items()},
            "in_the_database": _cycles(app),
            "with_a_snapshot_held_open": _beside_a_snapshot(url, app),
            "by_a_daemon": await _by_a_daemon(url, app),
        }


async def _by_a_daemon(url: str, app: Application) -> Json:
    """The whole way of jobs to the stand-in for Inngest, which runs in this process as the sandbox does."""
    api = EventApi()
    async with serve_event_api(api) as events_url, serve_sandbox(url) as server:
        settings = {
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
            "INNGEST_EVENT_KEY": EVENT_KEY,
            "INNGEST_EVENT_API_BASE_URL": events_url,
            "PRIORITYD_JOBS_IN_FLIGHT": IN_FLIGHT,
        }
        async with start_daemon(**settings, **NO_TIMER):
            before, began = len(api.accepted), time.perf_counter()
            while len(api.accepted) < before + RELEASED:
                await anyio.to_thread.run_sync(_end_what_is_in_flight, app)
                await anyio.sleep(0.05)  # the work of all that are in flight
            took = time.perf_counter() - began
    return {"released": len(api.accepted) - before, "jobs_per_second": round(RELEASED / took)}


def _end_what_is_in_flight(app: Application) -> None:
    app.connection.execute(
        """update background_jobs set status = 'completed' where id in (
               select job_id from priorityd.ordered_jobs where sent_at is not null)"""
    )


def _fill(app: Application) -> None:
    app.connection.execute(FILL.encode())
    app.connection.execute(f"select sweep_workspace_priorities(p_limit => {IN_WORKSPACES})".encode())
    app.connection.execute(b"vacuum (analyze)")


def _cycles(app: Application) -> Json:
    """Released, sent and ended, a batch at a time, as a daemon and its workers do it."""
    began, releasing, done = time.perf_counter(), 0.0, 0
    while done < RELEASED:
        call_began = time.perf_counter()
        jobs = _release(app, BATCH)
        releasing += time.perf_counter() - call_began
        app.connection.execute("select mark_jobs_sent(%s::uuid[])", (jobs,))
        app.connection.execute(
            "update background_jobs set status = 'completed' where id = any (%s::uuid[])", (jobs,)
        )
        done += len(jobs)
    took = time.perf_counter() - began
    return {
        "released": done,
        "jobs_per_second": round(done / took),
        "jobs_per_second_of_releasing_alone": round(done / releasing),
    }


def _beside_a_snapshot(url: str, app: Application) -> Json:
    """Somebody's forgotten transaction keeps every row that is over: what a release costs in the end."""
    none_held = _last_releases(app)
    with psycopg.connect(url) as forgotten:
        forgotten.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        forgotten.execute("select pg_current_snapshot()")
        held = _last_releases(app)
    return {
        "released": RELEASED_BESIDE,
        "milliseconds_a_release_of_100": {"none_held": spread(none_held, 1), "held": spread(held, 1)},
        "ratio": bar(median(held) / median(none_held), 2.0),
    }


def _last_releases(app: Application) -> list[float]:
    """Milliseconds of each of the last tenth of the releases."""
    took = []
    for _ in range(RELEASED_BESIDE // BATCH):
        began = time.perf_counter()
        jobs = _release(app, BATCH)
        took.append(1000 * (time.perf_counter() - began))
        app.connection.execute("select mark_jobs_sent(%s::uuid[])", (jobs,))
        app.connection.execute(
            "update background_jobs set status = 'completed' where id = any (%s::uuid[])", (jobs,)
        )
    return took[-len(took) // 10 :]


def _release(app: Application, limit: int, *, until_placed: bool = False) -> list[str]:
    while True:
        row = app.connection.execute(
            "select release_ordered_jobs(%s, %s, %s)", (uuid4(), IN_FLIGHT, limit)
        ).fetchone()
        assert row is not None
        if row[0]["jobs"] or not until_placed:
            return [job["job_id"] for job in row[0]["jobs"]]


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 2)


def _plan(app: Application, query: str) -> Json:
    with app.connection.transaction():
        app.connection.execute("set local enable_seqscan = off; set local enable_bitmapscan = off")
        row = app.connection.execute(f"explain (analyze, buffers, format json) {query}".encode()).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    indexes = sorted({node["Index Name"] for node in _nodes(plan) if "Index Name" in node})
    return {
        "nodes": [node["Node Type"] for node in _nodes(plan)],
        "indexes": indexes,
        "pages": plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        "milliseconds": plan["Actual Total Time"],
    }


def _nodes(plan: Json) -> Iterator[Json]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


FILL = f"""
insert into repositories select from generate_series(1, {REPOSITORIES});
insert into tracked_repositories (repository_id) select id from repositories;
insert into workspaces select from generate_series(1, {WORKSPACES});
insert into workspace_repositories (workspace_id, repository_id)
select w.id, r.id
from (select id, row_number() over (order by id) as n from repositories limit {IN_WORKSPACES}) r
join (select id, row_number() over () as n from workspaces) w on w.n = 1 + r.n % {WORKSPACES};
insert into background_jobs (id, type, status, repository_id, payload, created_at)
select gen_random_uuid(), 'recent-prs', 'queued', r.id, jsonb_build_object('repositoryId', r.id, 'n', g.n),
    now() - make_interval(secs => g.n / 100.0)
from generate_series(0, {WAITING} - 1) g (n)
join (select id, row_number() over () - 1 as n from repositories) r on r.n = g.n % {REPOSITORIES};
insert into priorityd.ordered_jobs (job_id, job_type, repository_id, queued_at)
select id, type, repository_id, created_at from background_jobs order by created_at;
insert into priorityd.job_hints (job_type, repository_id)
select 'recent-prs', id from repositories
"""

PLANS = {
    "whose turn it is": """
        select t.workspace_id from priorityd.job_turns t
        where t.job_type = 'recent-prs' and t.active and t.served >= 1
        order by t.served, t.workspace_id limit 1""",
    "the first lane": """
        select l.* from priorityd.job_lanes l
        where l.job_type = 'recent-prs' and l.priority = 'medium'
            and l.workspace_id = '' and l.head_queued_at >= '-infinity'
        order by l.head_queued_at, l.head_number limit 1""",
    "the next job of a lane": """
        select o.queued_at, o.number, o.job_id from priorityd.ordered_jobs o
        where o.job_type = 'recent-prs' and o.released_at is null and o.aside_until is null
            and o.repository_id = (select id from repositories limit 1)
        order by o.queued_at, o.number limit 1""",
    "what is in flight": """
        select count(*) from priorityd.jobs_in_flight(priorityd.ids_in_flight())""",
}
