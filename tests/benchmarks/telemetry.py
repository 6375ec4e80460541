"""What telemetry costs: a poll of background_jobs in the database, and a scrape on the daemon's host.

A poll is judged by the share of the database's time that polls take. The floor of a scrape is one of the same
samples from the web server of prometheus_client.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any
from uuid import UUID, uuid4

import anyio
import anyio.to_thread
import httpx
import psycopg
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from priorityd.core.pacing import LookPace
from priorityd.daemon.jobs.watcher import PAGE_SIZE, POLL_SECONDS, SHARE
from tests.benchmarks.database import application
from tests.benchmarks.figures import at_most
from tests.support.application import Application
from tests.support.daemon_process import start_daemon
from tests.support.servers import start_servers

TRACKED, HISTORY, QUEUED = 10_000, 1_000_000, 1_000_000
JOBS_PER_SECOND = 100
POLLS, SCRAPES = 12, 200
LONG_QUEUE_BAR_MS = 100.0

_HISTORY = """
insert into background_jobs (status, created_at, started_at, completed_at, repository_id)
select 'completed', t.at, t.at + interval '2 s', t.at + interval '5 s', r.ids[1 + n %% cardinality(r.ids)]
from generate_series(1, %s) n,
    lateral (select now() - interval '1 h' - n * interval '1 s' as at) t,
    (select array_agg(id) as ids from repositories) r
"""
# All kinds: with a word, with a score, and with neither, so that the repository is looked up.
_LONG_QUEUE = """
insert into background_jobs (type, status, created_at, payload, repository_id)
select 'reviews', 'queued', now() - n * interval '10 ms',
    case n %% 3 when 0 then '{"priority": "low"}' when 1 then '{"priority": 100}' else '{}' end::jsonb,
    r.ids[1 + n %% cardinality(r.ids)]
from generate_series(1, %s) n, (select array_agg(id) as ids from repositories) r
"""
# Each job waits for two seconds, runs for one, and ends now; others wait in the meantime.
_QUEUE = """
insert into background_jobs (status, created_at, repository_id)
select 'queued', clock_timestamp(), unnest(%s::uuid[])
"""
_FINISH = """
update background_jobs set status = 'completed', started_at = clock_timestamp() - interval '1 s',
    completed_at = clock_timestamp()
where id in (
    select id from background_jobs where status = 'queued' and created_at < clock_timestamp() - interval '2 s'
)
"""


async def telemetry() -> dict[str, Any]:
    """Polls and scrapes while 100 jobs a second end, over the history of a million; then a million wait."""
    with application() as (url, app):
        repositories = app.repositories(TRACKED)
        app.connection.execute(_HISTORY, (HISTORY,))
        app.connection.execute("vacuum analyze")
        with _jobs(url, repositories):
            first, polls = await anyio.to_thread.run_sync(_polls, app)
            async with start_servers(url) as server:
                settings: dict[str, Any] = {
                    "SUPABASE_URL": server.url,
                    "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
                }
                async with start_daemon(**settings) as daemon:
                    await anyio.sleep(2 * POLL_SECONDS + 1)
                    text, scrapes = await anyio.to_thread.run_sync(_scrapes, daemon.port)
            bare_text, bare_scrapes = await anyio.to_thread.run_sync(_bare_scrapes, text)
            assert len(bare_text.splitlines()) >= len(text.splitlines()), "the floor lacks samples"
            app.connection.execute(_LONG_QUEUE, (QUEUED,))
            app.connection.execute("vacuum analyze")
            long_queue, walked = await anyio.to_thread.run_sync(_walk, app)
    poll, long_poll = _summary([each["ms"] for each in polls]), _summary(long_queue)
    scrape, bare_scrape = _summary(scrapes), _summary(bare_scrapes)
    return {
        "tracked": TRACKED,
        "history": HISTORY,
        "jobs_per_second": JOBS_PER_SECOND,
        "first_poll_ms": first["ms"],
        "jobs_counted": sum(each["jobs"] for each in polls),
        "poll_database_ms": poll,
        "queued": QUEUED,
        "long_queue_poll_database_ms": long_poll,
        "long_queue_counted": walked,
        "scrape_ms": scrape | {"bytes": len(text)},
        "bare_scrape_ms": bare_scrape,
        "bars": {
            "poll_share": at_most(poll["p50"] / 1000 / POLL_SECONDS, SHARE),
            "long_queue_poll_ms": at_most(long_poll["p95"], LONG_QUEUE_BAR_MS, 1),
            "scrape_ratio": at_most(scrape["p50"] / bare_scrape["p50"], 1.5),
        },
    }


@contextmanager
def _jobs(url: str, repositories: list[UUID]) -> Iterator[None]:
    """An application whose workers end 100 jobs a second."""
    over, chance = threading.Event(), random.Random(1)

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not over.wait(0.1):
                connection.execute(_QUEUE, (chance.sample(repositories, JOBS_PER_SECOND // 10),))
                connection.execute(_FINISH)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def _polls(app: Application) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The very first poll, then those that are measured, as often as the daemon polls."""
    daemon_id, page = uuid4(), None
    first, page = _poll(app, daemon_id, page)
    polls = []
    for _ in range(POLLS):
        time.sleep(POLL_SECONDS)
        poll, page = _poll(app, daemon_id, page)
        polls.append(poll)
    return first, polls


def _walk(app: Application) -> tuple[list[float], dict[str, Any]]:
    """The polls until all waiting jobs have been counted."""
    daemon_id, page, took = uuid4(), None, []
    pace = LookPace(POLL_SECONDS, SHARE, POLL_SECONDS)
    rest = 0.0
    while True:
        answer = _ask(app, daemon_id, page)
        took.append(answer["database_seconds"] * 1000)
        rest += pace.rest_after(answer["database_seconds"], quiet=False)
        page, queue = answer["page"], answer["queue"]
        if queue is not None and sum(each["jobs"] for each in queue["jobs"]) >= QUEUED and queue["whole"]:
            return took, {"jobs": queue["jobs"], "polls": len(took), "as_old_as_seconds": round(rest)}


def _poll(app: Application, daemon_id: UUID, page: int | None) -> tuple[dict[str, float], int | None]:
    answer = _ask(app, daemon_id, page)
    jobs = sum(group["jobs"] for group in answer["finished"])
    return {"ms": round(answer["database_seconds"] * 1000, 2), "jobs": jobs}, answer["page"]


def _ask(app: Application, daemon_id: UUID, page: int | None) -> dict[str, Any]:
    row = app.connection.execute(
        "select poll_background_jobs(%s, %s, %s)", (daemon_id, page, PAGE_SIZE)
    ).fetchone()
    assert row is not None
    answer: dict[str, Any] = row[0]
    return answer


class _Samples(Collector):
    """The samples of a scrape, as they are."""

    def __init__(self, text: str) -> None:
        self._families = list(text_string_to_metric_families(text))

    def collect(self) -> Iterable[Metric]:
        return self._families


def _bare_scrapes(text: str) -> tuple[str, list[float]]:
    """The same for these samples and the server of prometheus_client."""
    registry = CollectorRegistry()
    registry.register(_Samples(text))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        return _scrapes(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _scrapes(port: int) -> tuple[str, list[float]]:
    """What one scrape brings, and the milliseconds of each, on a connection kept open as by Prometheus."""
    took = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        for _ in range(SCRAPES):
            began = time.perf_counter()
            answer = client.get("/metrics")
            took.append((time.perf_counter() - began) * 1000)
            answer.raise_for_status()
            time.sleep(0.05)
    return answer.text, took


def _summary(milliseconds: list[float]) -> dict[str, float]:
    return {
        "p50": round(median(milliseconds), 2),
        "p95": round(quantiles(milliseconds, n=20)[-1], 2),
        "most": round(max(milliseconds), 2),
        "n": len(milliseconds),
    }
