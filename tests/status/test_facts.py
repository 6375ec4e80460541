"""Facts are read from the parts, with their ages, on a real database."""

from __future__ import annotations

from datetime import timedelta

import pytest

from priorityd.core.status.facts import Facts
from priorityd.core.status.health import STARTING, judge
from priorityd.daemon.app import sources_of
from priorityd.daemon.clock import monotonic, utc_now
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
    assert judge(known(sources)).priorities == "The one workspace repository is high."


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
    assert not database_facts.unheard_of, "it answered, but refused"


def test_before_anything_has_answered_everything_is_as_old_as_the_daemon(sources: Sources) -> None:
    facts = known(sources)
    assert facts.database.silent_seconds <= facts.up_seconds
    assert not facts.stream.heard
    assert not facts.repair.started


def test_a_host_clock_that_is_ahead_is_known_without_asking(parts: Parts, sources: Sources) -> None:
    assert known(sources).database.clock_ahead_seconds is None
    parts.shared.database_clock.read(utc_now() - timedelta(hours=1))
    assert known(sources).database.clock_ahead_seconds == pytest.approx(3600, abs=60)


def test_what_is_known_is_exported_with_its_age(parts: Parts, sources: Sources) -> None:
    facts = known(sources)
    parts.metrics.health.show(facts, judge(facts))
    assert parts.metric("ready") == 0
    assert parts.metric("problem", problem="database_silent") == 0
    assert parts.metric("known_age_seconds", of="database") == facts.database.silent_seconds
