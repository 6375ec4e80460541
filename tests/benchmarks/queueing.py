"""10,000 jobs from a shell: what the look-ups add to sending alone, and the resulting order."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import anyio
import httpx
import psycopg

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.core.inngest.run_priority import run_priority_expression
from priorityd.core.jobs.events import Job, job_event
from priorityd.core.jobs.send_order import SendOrder
from priorityd.daemon.database.store import read
from tests.benchmarks.database import application
from tests.benchmarks.figures import at_most, ratios, spread
from tests.support.cel import head_start
from tests.support.daemon_process import PRIORITYD, environment, eventually, priorityd
from tests.support.event_api import EVENT_KEY
from tests.support.servers import start_servers

JOBS, IN_WORKSPACES = 10_000, 4_000
LATENCIES_SECONDS = (0.0, 0.2)
"""The latency of each request: none, as on one machine, and one that is likely across the internet."""
ROUNDS = 11

Settings = dict[str, Any]
Json = dict[str, Any]


async def queue() -> Json:
    """`priorityd queue` of 10,000 repositories, in turns with sending the very same events."""
    with application() as (url, app):
        repositories = app.repositories(JOBS)
        app.add(app.workspace(), *(key for number, key in enumerate(repositories) if number % 5 < 2))
        _count_calls(url)
        async with start_servers(url) as server:
            supabase = {"SUPABASE_URL": server.url, "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key}
            assert (await priorityd("sync", **supabase))[0] == 0
            compared = []
            for latency in LATENCIES_SECONDS:
                with _event_api(latency) as events_url:
                    settings = supabase | {
                        "INNGEST_EVENT_API_BASE_URL": events_url,
                        "INNGEST_EVENT_KEY": EVENT_KEY,
                    }
                    compared.append({"latency_seconds": latency, **await _compare(settings, repositories)})
                    events = _accepted(events_url)[:JOBS]
        calls = await _calls(url, ROUNDS * len(LATENCIES_SECONDS) * JOBS // 500)
    return {
        "jobs": JOBS,
        "in_workspaces": IN_WORKSPACES,
        "look_up_calls_per_run": calls / (ROUNDS * len(LATENCIES_SECONDS)),
        "compared": compared,
        "own_processor_seconds": _own_work(events),
        "overtaken": _overtaken(events),
        "bars": {"ratio_across_the_internet": at_most(compared[-1]["ratio"]["median"], 1.01)},
    }


async def _compare(settings: Settings, repositories: Sequence[UUID]) -> Json:
    ids = "".join(f"{key}\tacme/repository\n" for key in repositories).encode()
    queueing, sending = [], []
    for number in range(ROUNDS):
        command = [*PRIORITYD, "queue", "recent-prs", "--stdin", "--json", "--batch-id", str(number)]
        report = json.loads(await _run(command, ids, settings))
        assert report["queued"] == JOBS
        queueing.append(report["seconds"])
        accepted = _accepted(str(settings["INNGEST_EVENT_API_BASE_URL"]))[-JOBS:]
        events = [{name: event[name] for name in ("name", "data", "id")} for event in accepted]
        alone = [sys.executable, "-m", "tests.benchmarks.send_alone"]
        sending.append(json.loads(await _run(alone, json.dumps(events).encode(), settings))["seconds"])
    return {
        "ratio": spread(ratios(queueing, sending)),
        "queue_seconds": spread(queueing),
        "send_seconds": spread(sending),
    }


async def _run(command: Sequence[str], stdin: bytes, settings: Settings) -> bytes:
    done = await anyio.run_process(command, input=stdin, env=environment(**settings))
    return done.stdout


@contextmanager
def _event_api(latency: float) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.benchmarks.event_api", str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        assert process.stdin is not None
        process.stdin.close()


def _accepted(url: str) -> list[Json]:
    accepted: list[Json] = httpx.get(f"{url}/stand-in/accepted", timeout=60).json()["accepted"]
    return accepted


def _count_calls(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter database postgres set track_functions = 'all'")


async def _calls(url: str, expected: int) -> int:
    """Calls of the look-up function as counted by PostgreSQL, which updates the count a moment later."""
    query = "select calls from pg_stat_user_functions where funcname = 'get_repository_priorities'"
    with psycopg.connect(url, autocommit=True) as connection:

        def counted() -> int:
            row = connection.execute(query).fetchone()
            return int(row[0]) if row else 0

        await eventually(lambda: counted() >= expected, 30)
        return counted()


def _own_work(events: Sequence[Json]) -> Json:
    """What queueing does besides sending, each part alone; the difference above is the unhidden rest."""
    keys = [UUID(event["data"]["repositoryId"]) for event in events]
    row = {"priority": "high", "is_workspace_repo": True, "workspace_count": 1}
    answer = json.dumps({str(key): row for key in keys})
    jobs = [Job("recent-prs", key, "acme/repository", {}, str(key)) for key in keys]
    order = SendOrder()
    found: dict[UUID, RepositoryPriority] = {}
    built: list[OutgoingEvent] = []
    return {
        "reading answers": _timed(
            lambda: found.update(read(dict[UUID, RepositoryPriority], json.loads(answer)))
        ),
        "building events": _timed(
            lambda: built.extend(job_event(job, found[job.repository_id], "") for job in jobs)
        ),
        "ordering events": _timed(lambda: _add_all(order, built)),
    }


def _add_all(order: SendOrder, events: Iterable[OutgoingEvent]) -> None:
    for event in events:
        order.add(event, urgent=True)


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return round(time.process_time() - began, 3)


def _overtaken(events: Sequence[Json]) -> Json:
    """How many of the workspace jobs start before a tracked-only job that was queued just before them."""
    urgent = [event for event in events if event["data"]["metadata"]["isWorkspaceRepo"]]
    waiting = [event for event in events if not event["data"]["metadata"]["isWorkspaceRepo"]]
    return {
        name: sum(head_start(expression, event) > head_start(expression, waiting[0]) for event in urgent)
        / len(urgent)
        for name, expression in (
            ("recommended", run_priority_expression()),
            ("event.data.priority", "event.data.priority"),
        )
    }
