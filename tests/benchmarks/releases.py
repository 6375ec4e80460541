"""What a release costs with many jobs waiting: in the database, with an old snapshot open, and by a
daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any
from uuid import uuid4

import anyio
import psycopg

from tests.benchmarks.database import application
from tests.benchmarks.figures import at_most, spread
from tests.support.application import Application
from tests.support.daemon_process import start_daemon
from tests.support.event_api import EVENT_KEY, EventApi, serve_event_api
from tests.support.servers import start_servers
from tests.support.stack import NO_TIMER

JOBS_OF_A_REPOSITORY, WORKSPACES = 50, 200
IN_FLIGHT, BATCH = 1000, 100

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReleaseSizes:
    """How many jobs wait, how many of them are released, and how many while a snapshot is held open."""

    waiting: int = 1_000_000
    released: int = 5000
    beside: int = 50_000

    @property
    def repositories(self) -> int:
        """A fifth of them are in workspaces."""
        return self.waiting // JOBS_OF_A_REPOSITORY


async def releases(sizes: ReleaseSizes) -> Json:
    """See the module's docstring."""
    with application() as (url, app):
        _fill(app, sizes)
        return {
            "waiting": sizes.waiting,
            "first_look_seconds": _timed(lambda: _release(app, 1, until_placed=True)),
            "plans": {name: _plan(app, query) for name, query in PLANS.items()},
            "in_the_database": _cycles(app, sizes.released),
            "with_a_snapshot_held_open": _beside_a_snapshot(url, app, sizes.beside),
            "by_a_daemon": await _by_a_daemon(url, app, sizes.released),
        }


async def _by_a_daemon(url: str, app: Application, released: int) -> Json:
    """The whole path of jobs to the stand-in for Inngest, which runs in this process, as does the sandbox."""
    api = EventApi()
    async with serve_event_api(api) as events_url, start_servers(url) as server:
        settings: dict[str, Any] = {
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
            "INNGEST_EVENT_KEY": EVENT_KEY,
            "INNGEST_EVENT_API_BASE_URL": events_url,
            "PRIORITYD_JOBS_IN_FLIGHT": IN_FLIGHT,
        }
        async with start_daemon(**settings, **NO_TIMER):
            before, began = len(api.accepted), time.perf_counter()
            while len(api.accepted) < before + released:
                await anyio.to_thread.run_sync(_end_what_is_in_flight, app)
                await anyio.sleep(0.05)  # the work of all jobs in flight
            took = time.perf_counter() - began
    return {"released": len(api.accepted) - before, "jobs_per_second": round(released / took)}


def _end_what_is_in_flight(app: Application) -> None:
    app.connection.execute(
        """update background_jobs set status = 'completed' where id in (
               select job_id from priorityd.ordered_jobs where sent_at is not null)"""
    )


def _fill(app: Application, sizes: ReleaseSizes) -> None:
    in_workspaces = sizes.repositories // 5
    fill = FILL.format(
        repositories=sizes.repositories,
        in_workspaces=in_workspaces,
        workspaces=min(WORKSPACES, in_workspaces),
        waiting=sizes.waiting,
    )
    app.connection.execute(fill.encode())
    app.connection.execute(f"select sweep_workspace_priorities(p_limit => {in_workspaces})".encode())
    app.connection.execute(b"vacuum (analyze)")


def _cycles(app: Application, jobs: int) -> Json:
    began, releasing, done = time.perf_counter(), 0.0, 0
    while done < jobs:
        seconds, released = _cycle(app)
        releasing += seconds
        done += released
    took = time.perf_counter() - began
    return {
        "released": done,
        "jobs_per_second": round(done / took),
        "jobs_per_second_of_releasing_alone": round(done / releasing),
    }


def _cycle(app: Application) -> tuple[float, int]:
    """Release, send and end jobs as a daemon and its workers do; the seconds of releasing, and the jobs."""
    began = time.perf_counter()
    jobs = _release(app, BATCH)
    seconds = time.perf_counter() - began
    app.connection.execute("select mark_jobs_sent(%s::uuid[])", (jobs,))
    app.connection.execute(
        "update background_jobs set status = 'completed' where id = any (%s::uuid[])", (jobs,)
    )
    return seconds, len(jobs)


def _beside_a_snapshot(url: str, app: Application, jobs: int) -> Json:
    """A forgotten transaction keeps every dead row: what a release costs in the end.

    Without one a release costs the same from the first to the last; that is measured before and after.
    """
    tenth = max(jobs // BATCH // 10, 1)
    none_held = _milliseconds(app, tenth)
    with psycopg.connect(url) as forgotten:
        forgotten.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        forgotten.execute("select pg_current_snapshot()")
        held = _milliseconds(app, jobs // BATCH)
    app.connection.execute(b"vacuum")
    none_held += _milliseconds(app, tenth)
    last = held[-tenth:]
    return {
        "released": jobs,
        "milliseconds_a_release_of_100": {
            "none_held": spread(none_held, 1),
            "held_first": spread(held[:tenth], 1),
            "held_last": spread(last, 1),
        },
        "ratio": at_most(median(last) / median(none_held), 2.0),
    }


def _milliseconds(app: Application, releases: int) -> list[float]:
    return [1000 * _cycle(app)[0] for _ in range(releases)]


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


FILL = """
insert into repositories select from generate_series(1, {repositories});
insert into tracked_repositories (repository_id) select id from repositories;
insert into workspaces select from generate_series(1, {workspaces});
insert into workspace_repositories (workspace_id, repository_id)
select w.id, r.id
from (select id, row_number() over (order by id) as n from repositories limit {in_workspaces}) r
join (select id, row_number() over () as n from workspaces) w on w.n = 1 + r.n % {workspaces};
insert into background_jobs (id, type, status, repository_id, payload, created_at)
select gen_random_uuid(), 'recent-prs', 'queued', r.id, jsonb_build_object('repositoryId', r.id, 'n', g.n),
    now() - make_interval(secs => g.n / 100.0)
from generate_series(0, {waiting} - 1) g (n)
join (select id, row_number() over () - 1 as n from repositories) r on r.n = g.n % {repositories};
insert into priorityd.ordered_jobs (job_id, job_type, repository_id, queued_at)
select id, type, repository_id, created_at from background_jobs order by created_at
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
