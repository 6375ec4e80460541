"""Facts are read from the parts, with their ages, on a real database."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from priorityd.core.status.facts import Facts
from priorityd.core.status.health import STARTING, judge
from priorityd.daemon.app import sources_of
from priorityd.daemon.clock import monotonic, since_boot, utc_now
from priorityd.daemon.repair.runs import RUNS_KEPT
from priorityd.daemon.status.facts import Sources, read_facts
from priorityd.daemon.status.status import describe
from tests.support.application import Application
from tests.support.database import Database
from tests.support.parts import Parts


@pytest.fixture
def app(database: Database) -> Application:
    return Application(database.connect())


@pytest.fixture
def sources(parts: Parts) -> Sources:
    return sources_of(parts.means, parts.shared, parts.agents)


def known(sources: Sources) -> Facts:
    return read_facts(sources, stopping=False)


async def test_what_was_counted_before_the_first_full_resync_is_not_told(
    app: Application, parts: Parts, sources: Sources
) -> None:
    app.add(app.workspace(), app.repository())
    await parts.agents.snapshotter.turn()
    assert judge(known(sources)).headline == STARTING
    await parts.agents.resyncer.turn()
    assert known(sources).counts is None
    await parts.agents.snapshotter.turn()
    assert judge(known(sources)).priorities == "The only workspace repository is high."


async def test_memberships_are_counted_and_not_flags(
    app: Application, parts: Parts, sources: Sources
) -> None:
    repository = app.repository()
    app.connection.execute(
        "update repositories set owner = 'acme', name = 'web' where id = %s", (repository,)
    )
    app.connection.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create trigger refuse before update on tracked_repositories for each row execute function refuse()"
    )
    app.add(app.workspace(), repository)
    await parts.agents.resyncer.turn()
    await parts.agents.worker.turn()
    await parts.agents.snapshotter.turn()
    facts = known(sources)
    assert facts.counts is not None
    assert (facts.counts.workspace_repositories, facts.counts.inversions) == (1, 1)
    assert facts.queue.parked == 1
    (parked,) = describe(sources, facts, judge(facts)).queue.parked_repositories
    assert (parked.repository_id, parked.name) == (repository, "acme/web")
    assert "no" in parked.reason


def refuse_all(app: Application) -> None:
    app.connection.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'frozen'; end $$;"
        "create trigger refuse before update on tracked_repositories for each row execute function refuse()"
    )


async def test_that_no_row_can_be_written_is_told_as_long_as_rows_wait(
    app: Application, parts: Parts, sources: Sources
) -> None:
    repositories = app.repositories(10)
    app.add(app.workspace(), *repositories)
    refuse_all(app)
    parts.shared.intake.add(repositories)
    await parts.agents.worker.turn()
    facts = known(sources)
    assert facts.queue.all_refused_because == "frozen (P0001)"
    report = describe(sources, facts, judge(facts))
    assert report.headline == "No priority can be written: frozen (P0001)."
    assert report.queue.all_refused_because == "frozen (P0001)"
    app.connection.execute("drop trigger refuse on tracked_repositories")
    # Another daemon may be the first to write them.
    app.connection.execute("select sync_workspace_priorities(%s, 'manual')", (repositories,))
    parts.agents.worker.stop()
    await parts.agents.worker.run()
    assert known(sources).queue.all_refused_because is None


async def test_a_row_without_a_repository_that_can_not_be_written_is_told_of_until_it_can(
    app: Application, parts: Parts, sources: Sources
) -> None:
    said = {"organization_name": "acme", "repository_name": "web"}
    row = app.track(None, priority="high", is_workspace_repo=True, **said)
    app.add(app.workspace(), app.repository())
    refuse_all(app)
    await parts.agents.elector.turn()
    for look in (parts.agents.resyncer.turn, lambda: sweep(parts)):
        await look()
        facts = known(sources)
        assert (facts.queue.nameless, facts.queue.refused_because) == (1, "frozen (P0001)")
        queue = describe(sources, facts, judge(facts)).queue
        (shown,) = queue.refused_rows
        assert queue.refused_rows_in_all == 1
        assert (shown.tracked_repository_id, shown.name, shown.reason) == (row, "acme/web", "frozen (P0001)")
    app.connection.execute("drop trigger refuse on tracked_repositories")
    await sweep(parts)
    assert known(sources).queue.nameless == 0


async def sweep(parts: Parts) -> None:
    """At once, as who has just become the leader does."""
    parts.shared.leadership.gained.tell()
    await parts.agents.sweeper.turn()


async def test_who_does_not_sweep_leaves_such_rows_to_who_does(
    app: Application, parts: Parts, sources: Sources
) -> None:
    app.track(None, priority="high", is_workspace_repo=True)
    refuse_all(app)
    await parts.agents.resyncer.turn()
    assert known(sources).queue.nameless == 1
    assert not parts.shared.leadership.is_held()
    await parts.agents.sweeper.turn()
    assert known(sources).queue.nameless == 0


async def test_the_silence_of_the_database_is_counted_from_its_last_answer(
    database: Database, parts: Parts, sources: Sources
) -> None:
    elector = parts.agents.elector
    await elector.turn()
    answered_at = elector.answered_at
    assert answered_at is not None
    assert known(sources).database.failure is None
    database.connect().execute("alter function hold_workspace_priority_lease rename to held")
    parts.shared.leadership.lease.next_ask_at = 0.0
    await elector.turn()
    database_facts = known(sources).database
    assert elector.answered_at == answered_at
    assert database_facts.silent_seconds <= monotonic() - answered_at
    assert database_facts.failure is not None
    assert not database_facts.unanswered, "it answered, but refused"


def test_before_anything_has_answered_everything_is_as_old_as_the_daemon(sources: Sources) -> None:
    facts = known(sources)
    assert facts.database.silent_seconds <= facts.up_seconds
    assert not facts.stream.heard
    assert not facts.repair.started


def test_a_host_clock_that_is_ahead_is_known_without_asking(parts: Parts, sources: Sources) -> None:
    assert known(sources).database.clock_ahead_seconds is None
    parts.shared.database_clock.read(utc_now() - timedelta(hours=1))
    assert known(sources).database.clock_ahead_seconds == pytest.approx(3600, abs=60)


def test_a_machine_that_slept_is_not_ahead_of_the_database(
    parts: Parts, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's wall clock is right again at once, and the database's went on meanwhile."""
    clock, slept = time.clock_gettime, 3600
    parts.shared.database_clock.read(utc_now() - timedelta(seconds=slept))
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + slept)
    assert known(sources).database.clock_ahead_seconds == pytest.approx(0, abs=60)


def test_what_is_known_is_exported_with_its_age(parts: Parts, sources: Sources) -> None:
    facts = known(sources)
    parts.metrics.health.show(facts, judge(facts))
    assert parts.metric("ready") == 0
    assert parts.metric("problem", problem="database_silent") == 0
    assert parts.metric("known_age_seconds", of="database") == facts.database.silent_seconds


def test_a_failed_full_resync_is_told_however_many_sweeps_fail_after_it(
    parts: Parts, sources: Sources
) -> None:
    runs = parts.shared.runs
    runs.record("full", "resync", "failed", 1.0)
    for _ in range(RUNS_KEPT):
        runs.record("sweep", "sweep", "failed", 0.1)
    assert known(sources).repair.last_resync_failed
    runs.record("full", "signal", "done", 1.0)
    assert not known(sources).repair.last_resync_failed


async def test_an_application_without_jobs_has_no_problem_and_one_whose_jobs_can_not_be_read_has(
    database: Database, parts: Parts, sources: Sources
) -> None:
    parts.shared.leadership.lease.answered(since_boot(), held=True, expires_in_seconds=60)
    watcher = parts.agents.job_watcher
    for statement, because, problem in (
        ("drop table background_jobs", "there is no table background_jobs", False),
        ("create table background_jobs (id uuid)", "background_jobs", True),
    ):
        database.connect().execute(statement.encode())
        watcher._next_at = 0.0
        await watcher.turn()
        facts = known(sources)
        off_because = describe(sources, facts, judge(facts)).jobs.off_because
        assert off_because is not None
        assert because in off_because
        named = "job_telemetry_off" in [each.name for each in judge(facts).problems]
        assert named is problem, off_because
