"""Jobs on a real database become counters, over restarts, lost tables and changes of the leader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import anyio
import psycopg
import pytest
from structlog.testing import capture_logs

from priorityd.core.history import History
from priorityd.daemon.clock import utc_now
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.jobs import watcher as job_watcher
from priorityd.daemon.jobs.watcher import JobWatcher
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.status.metrics import Metrics
from tests.support.application import Application
from tests.support.daemon_process import eventually
from tests.support.database import Database, schema_sql
from tests.support.servers import start_servers
from tests.support.situations import named


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "QUIET_POLL_SECONDS", "OFF_POLL_SECONDS"):
        monkeypatch.setattr(job_watcher, name, 0.05)
    monkeypatch.setattr(job_watcher, "SHARE", 1)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    # The function waits for the slowest clock that writes to the table; here there is one clock.
    database.connect().execute(
        "create or replace function without_settling() returns void language plpgsql as $$ begin execute"
        " replace(pg_get_functiondef('poll_background_jobs'::regproc), 'DEFAULT 5', 'DEFAULT 0'); end $$;"
        "select without_settling(); drop function without_settling"
    )
    async with (
        start_servers(database.url) as server,
        open_store(server.url, server.service_role_key) as store,
    ):
        yield store


@dataclass
class Watching:
    """A job watcher at work."""

    watcher: JobWatcher
    metrics: Metrics
    history: History
    leads: bool = True
    polls: int = 0

    def asks_whether_it_leads(self) -> bool:
        self.polls += 1
        return self.leads

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"workspace_priority_{name}", labels) or 0.0


@asynccontextmanager
async def watching(store: Store, *, leads: bool = True) -> AsyncIterator[Watching]:
    metrics, history = Metrics(), History()
    watcher = JobWatcher(
        store,
        uuid4(),
        is_leader=lambda: watched.asks_whether_it_leads(),
        history=history,
        metrics=metrics.jobs,
        liveness=Liveness(),
    )
    watched = Watching(watcher, metrics, history, leads)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        yield watched
        watcher.stop()


def insert(
    connection: psycopg.Connection[object], priority: int, status: str, jobs: int = 1, started: str = "20"
) -> None:
    """Jobs that were created 30 s ago; those that ended did so now."""
    ended = "now()" if status in ("completed", "failed", "cancelled") else "null"
    column = "failed_at" if status == "failed" else "completed_at"
    connection.execute(
        f"""insert into background_jobs (status, payload, created_at, started_at, {column})
            select %s, jsonb_build_object('priority', %s::int), now() - interval '30 s',
                now() - make_interval(secs => %s), {ended}
            from generate_series(1, %s)""".encode(),
        (status, priority, started if status != "queued" else None, jobs),
    )


async def test_ended_jobs_become_counters_and_times_and_queued_ones_gauges(
    store: Store, database: Database
) -> None:
    connection = database.connect()
    async with watching(store) as it:
        await eventually(lambda: it.watcher.latest)
        insert(connection, 100, "completed", 3)
        insert(connection, 25, "failed", 2)
        insert(connection, 50, "queued", 4)
        await eventually(lambda: it.value("jobs_total", priority="high", status="completed") == 3)
        await eventually(lambda: it.value("jobs_total", priority="low", status="failed") == 2)
        assert it.watcher.queue is not None
        assert it.watcher.queue.whole
        assert 0 < it.value("job_queue_age_seconds") < 5
        await eventually(lambda: it.value("job_queue_depth", priority="medium") == 4)
        assert 30 <= it.value("job_queue_oldest_seconds", priority="medium") < 60
        assert it.value("job_wait_seconds_sum", priority="high") == pytest.approx(30)
        assert it.value("job_duration_seconds_sum", priority="high") == pytest.approx(60)
        assert it.value("job_turnaround_seconds_sum", priority="high") == pytest.approx(90)
        assert it.value("job_turnaround_seconds_count", priority="low") == 0, "they have not completed"
        assert it.value("job_wait_seconds_count", priority="low") == 2
        jobs = [minute.jobs for minute in it.history.minutes(utc_now())]
        assert sum(each["high", "completed"] for each in jobs) == 3


async def test_more_jobs_than_a_page_holds_are_all_counted(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_watcher, "PAGE_SIZE", 7)
    async with watching(store) as it:
        await eventually(lambda: it.watcher.latest)
        insert(database.connect(), 100, "completed", 50)
        await eventually(lambda: it.value("jobs_total", priority="high", status="completed") == 50)


async def test_an_overtaken_job_is_counted_and_both_are_named(store: Store, database: Database) -> None:
    connection = database.connect()
    app = Application(connection)
    (repository,) = named(app, "acme/web")
    began = utc_now()
    with capture_logs() as logs:
        async with watching(store) as it:
            await eventually(lambda: it.watcher.latest)
            insert(connection, 100, "queued")
            connection.execute(
                "insert into background_jobs (status, payload, started_at, repository_id)"
                " values ('processing', '{\"priority\": 25}', now(), %s)",
                (repository,),
            )
            await eventually(lambda: it.value("job_inversions_total") == 1)
            (inversion,) = it.watcher.inversions_since(began)
            assert it.watcher.inversions_since(utc_now()) == []
    assert (inversion.priority, inversion.waiting_priority) == ("low", "high")
    assert (inversion.repository_id, inversion.name) == (repository, "acme/web")
    (line,) = [line for line in logs if line["event"] == "jobs_inverted"]
    assert (line["jobs"], line["repository_id"], line["name"]) == (1, str(repository), "acme/web")
    assert (line["job_id"], line["waiting_job_id"]) == (
        str(inversion.job_id),
        str(inversion.waiting_job_id),
    )
    assert (line["waiting_repository_id"], line["waiting_name"]) == (None, None)


async def test_the_next_daemon_counts_what_ended_meanwhile_and_nothing_twice(
    store: Store, database: Database
) -> None:
    connection = database.connect()
    async with watching(store) as first:
        await eventually(lambda: first.watcher.latest)
        insert(connection, 100, "completed", 5)
        await eventually(lambda: first.value("jobs_total", priority="high", status="completed") == 5)
    insert(connection, 50, "completed", 4)
    async with watching(store) as second:
        await eventually(lambda: second.value("jobs_total", priority="medium", status="completed") == 4)
        assert second.value("jobs_total", priority="high", status="completed") == 0


async def test_only_the_leader_reads_and_one_that_loses_the_lead_shows_no_queue(
    store: Store, database: Database
) -> None:
    connection = database.connect()
    insert(connection, 100, "queued", 2)
    async with watching(store) as one, watching(store, leads=False) as other:
        await eventually(lambda: one.value("job_queue_depth", priority="high") == 2)
        assert other.watcher.latest is None
        one.leads, other.leads = False, True
        await eventually(lambda: other.value("job_queue_depth", priority="high") == 2)
        await eventually(lambda: one.value("job_queue_depth", priority="high") == 0)
        insert(connection, 100, "completed", 6)
        await eventually(lambda: other.value("jobs_total", priority="high", status="completed") == 6)
        assert one.value("jobs_total", priority="high", status="completed") == 0


async def test_one_that_gets_the_lead_back_reads_at_once(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_watcher, "QUIET_POLL_SECONDS", 3600)
    async with watching(store) as it:
        await eventually(lambda: it.watcher.latest)
        it.leads = False
        it.watcher.wake()
        await eventually(lambda: it.watcher.latest is None)
        it.leads = True
        await eventually(lambda: it.watcher.latest)


async def test_what_holds_the_count_back_is_known_by_its_backend(store: Store, database: Database) -> None:
    holder = database.connect(autocommit=False)
    async with watching(store) as it:
        await eventually(lambda: it.watcher.latest)
        await anyio.to_thread.run_sync(lambda: holder.execute("select from background_jobs"))
        await eventually(
            lambda: (
                it.watcher.latest
                and it.watcher.latest.held_back_by
                and it.watcher.latest.held_back_by.pid == holder.info.backend_pid
            )
        )
        holder.rollback()
        await eventually(lambda: it.watcher.latest and not it.watcher.latest.held_back_by)


async def test_a_missing_table_is_said_once_and_found_when_it_comes(store: Store, database: Database) -> None:
    connection = database.connect()
    connection.execute("drop table background_jobs")
    with capture_logs() as logs:
        async with watching(store) as it:
            await eventually(lambda: it.watcher.off_because == "there is no table background_jobs")
            polls = it.polls
            await eventually(lambda: it.polls > polls + 3)
            # In a thread: it may have to wait for a call that the sandbox, in this event loop, has to end.
            await anyio.to_thread.run_sync(connection.execute, schema_sql("application"))
            await eventually(lambda: it.watcher.latest)
            assert it.watcher.off_because is None
            insert(connection, 100, "completed")
            await eventually(lambda: it.value("jobs_total", priority="high", status="completed") == 1)
    assert [line["event"] for line in logs if line["event"].startswith("job_telemetry")] == [
        "job_telemetry_stopped",
        "job_telemetry_started",
    ]


async def test_it_is_off_where_the_migration_of_job_telemetry_was_left_out(
    store: Store, database: Database
) -> None:
    database.connect().execute("drop function poll_background_jobs; notify pgrst, 'reload schema'")
    async with watching(store) as it:
        await eventually(
            lambda: it.watcher.off_because == "the migration of job telemetry is not applied", 30
        )


async def test_goes_on_after_calls_that_failed(store: Store, database: Database) -> None:
    connection, holder = database.connect(), database.connect(autocommit=False)
    with capture_logs() as logs:
        async with watching(store) as it:
            await eventually(lambda: it.watcher.latest)
            # In a thread: it may have to wait for a call that the sandbox, in this event loop, has to end.
            await anyio.to_thread.run_sync(
                lambda: holder.execute("select from priorityd.job_cursor for update")
            )
            insert(connection, 100, "completed", 2)
            await eventually(lambda: any(line["event"] == "job_poll_failed" for line in logs))
            holder.rollback()
            await eventually(lambda: it.value("jobs_total", priority="high", status="completed") == 2)


async def test_who_does_not_read_does_not_tell_why_there_was_nothing_to_read(
    store: Store, database: Database
) -> None:
    database.connect().execute("drop table background_jobs")
    async with watching(store) as it:
        await eventually(lambda: it.watcher.off_because)
        it.leads = False
        await eventually(lambda: it.watcher.off_because is None)
