"""The sweeper on a real database, turn by turn."""

from __future__ import annotations

from uuid import UUID

import anyio
import pytest

from priorityd.core.apply.work_queue import WorkQueue
from priorityd.daemon.clock import monotonic, since_boot
from priorityd.daemon.repair.sweeper import FIRST_LIMIT
from tests.support.application import Application
from tests.support.database import Database
from tests.support.parts import Parts


@pytest.fixture
def app(database: Database) -> Application:
    return Application(database.connect())


def lead(parts: Parts) -> None:
    """Timer work has become this daemon's."""
    parts.shared.leadership.lease.answered(since_boot(), held=True, expires_in_seconds=60)
    parts.shared.leadership.gained.tell()


def lose_the_lease(parts: Parts) -> None:
    """As if this daemon had stood still until it was over."""
    parts.shared.leadership.lease.answered(since_boot() - 60, held=True, expires_in_seconds=60)


async def test_asked_for_it_mends_what_nobody_named(app: Application, parts: Parts) -> None:
    sweeper, (repository,) = parts.agents.sweeper, app.repositories(1)
    app.add(app.workspace(), repository)
    parts.shared.sweeps.add("reconnect")
    await sweeper.turn()
    assert app.row(repository) == ("high", True, 1)
    assert sweeper.has_succeeded
    assert sweeper.overdue_seconds() == 0
    assert parts.metric("resyncs_total", kind="sweep", trigger="reconnect", outcome="done") == 1
    assert not sweeper.has_more()


async def test_by_timer_only_the_leader_sweeps(app: Application, parts: Parts) -> None:
    sweeper, (repository,) = parts.agents.sweeper, app.repositories(1)
    app.add(app.workspace(), repository)
    await sweeper.turn()
    assert app.row(repository)[0] == "medium"
    assert await sweeper.turn() > 5, "left to the leader, it is not due again before the interval has passed"
    lead(parts)
    await sweeper.turn()
    assert app.row(repository)[0] == "high", "who has become the leader does not wait for the interval"


async def test_a_sweep_that_fails_is_overdue_until_one_succeeds(
    app: Application, database: Database, parts: Parts
) -> None:
    sweeper = parts.agents.sweeper
    database.connect().execute("alter function sweep_workspace_priorities rename to swept")
    lead(parts)
    await sweeper.turn()
    assert sweeper.overdue_seconds() > 0
    assert sweeper.failure is not None
    database.connect().execute("alter function swept rename to sweep_workspace_priorities")
    sweeper._backoff.retry_at = 0.0
    await sweeper.turn()
    assert (sweeper.overdue_seconds(), sweeper.failure) == (0, None)


async def test_finding_that_has_become_slow_makes_no_call_smaller(app: Application, parts: Parts) -> None:
    """As on a database that is busy with something else."""
    sweeper, repositories = parts.agents.sweeper, app.repositories(FIRST_LIMIT + 100)
    lead(parts)
    await sweeper.turn()
    app.connection.execute(
        """create sequence looks;
        alter function priorityd.mismatched_between(uuid, uuid) rename to quickly_mismatched_between;
        create function priorityd.mismatched_between(uuid, uuid) returns setof uuid language sql as $$
            select from nextval('public.looks'), pg_sleep(1.5);
            select priorityd.quickly_mismatched_between($1, $2)
        $$"""
    )
    app.add(app.workspace(), *repositories)
    parts.shared.sweeps.add("reconnect")
    await anyio.sleep(await sweeper.turn())
    await sweeper.turn()
    assert app.wrong_rows() == 0
    assert app.connection.execute("select last_value from looks").fetchone() == (2,)
    assert sweeper._size.rows > FIRST_LIMIT


@pytest.fixture
def slow_and_others(app: Application) -> tuple[UUID, list[UUID]]:
    """Repositories that must become high, where calls may take half a second; the tracked row of one, the
    first by its id, takes a minute to write."""
    for function in (
        "sync_workspace_priorities(uuid[], text, boolean)",
        "sweep_workspace_priorities(text, integer, boolean)",
        "resync_workspace_priorities_page(uuid, integer, text, boolean)",
    ):
        app.connection.execute(f"alter function {function} set statement_timeout = '500ms'".encode())
    app.connection.execute(
        """create function sleep() returns trigger language plpgsql as $$
        begin perform pg_sleep(60); return new; end $$;
        create trigger sleep before update on tracked_repositories
        for each row when (old.repository_name = 'slow') execute function sleep()"""
    )
    slow, others = app.repository(tracked=False), app.repositories(3)
    app.connection.execute(
        "insert into tracked_repositories (id, repository_id, repository_name) values (%s, %s, 'slow')",
        (UUID(int=1), slow),
    )
    app.add(app.workspace(), slow, *others)
    return slow, others


def all_due(queue: WorkQueue) -> None:
    """Nothing waits for its next attempt."""
    for item in queue._dirty.values():
        queue._reschedule(item, 0.0)


async def test_a_row_that_takes_too_long_by_itself_stops_no_sweep(
    slow_and_others: tuple[UUID, list[UUID]], app: Application, parts: Parts
) -> None:
    slow, others = slow_and_others
    sweeper, queue = parts.agents.sweeper, parts.shared.queue
    lead(parts)
    while not sweeper.has_succeeded:
        sweeper._size.rows = min(sweeper._size.rows, 2)
        sweeper._backoff.retry_at = 0.0
        await sweeper.turn()
    assert set(queue._dirty) == {slow, *others}
    while any(app.row(each)[0] != "high" for each in others):
        all_due(queue)
        await parts.agents.worker.turn()
    assert app.row(slow)[0] == "medium"
    assert queue.parked == {}, "who knows how long it takes next time"


async def test_nor_does_it_keep_the_daemon_from_being_ready(
    slow_and_others: tuple[UUID, list[UUID]], app: Application, parts: Parts
) -> None:
    slow, others = slow_and_others
    await parts.agents.resyncer.turn()
    assert parts.agents.resyncer.first_done_at is not None
    assert [app.row(each)[0] for each in others] == ["high"] * 3
    assert set(parts.shared.queue._dirty) == {slow}


async def test_parked_repositories_get_another_chance_with_each_sweep(app: Application, parts: Parts) -> None:
    (repository,) = app.repositories(1)
    queue = parts.shared.queue
    parts.shared.intake.add([repository])
    queue.park(queue.take(monotonic(), 1)[0], "rejected")
    parts.shared.sweeps.add("event")
    await parts.agents.sweeper.turn()
    assert (queue.parked_count, queue.pending) == (0, 1)


async def test_who_stood_still_in_a_sweep_by_timer_does_not_go_on_with_it(
    app: Application, parts: Parts
) -> None:
    app.add(app.workspace(), *app.repositories(2 * FIRST_LIMIT))
    lead(parts)
    parts.shared.recorded.subscribe(lambda: lose_the_lease(parts))
    await parts.agents.sweeper.turn()
    assert app.wrong_rows() == FIRST_LIMIT
    parts.shared.sweeps.add("reconnect")
    parts.agents.sweeper._pace.hurry()
    await parts.agents.sweeper.turn()
    assert app.wrong_rows() == 0, "what its own stream asks for, each daemon does"


async def test_a_sweep_by_timer_that_failed_is_the_next_leaders(
    app: Application, database: Database, parts: Parts
) -> None:
    sweeper = parts.agents.sweeper
    app.add(app.workspace(), *app.repositories(1))
    database.connect().execute("alter function sweep_workspace_priorities rename to swept")
    lead(parts)
    await sweeper.turn()
    lose_the_lease(parts)
    parts.shared.leadership.lease.failed(since_boot())
    sweeper._backoff.retry_at = 0.0
    await sweeper.turn()
    assert sweeper.failure is not None, "nobody can have said whose it is by now"
    database.connect().execute("alter function swept rename to sweep_workspace_priorities")
    parts.shared.leadership.lease.answered(since_boot(), held=False, expires_in_seconds=10)
    await sweeper.turn()
    assert (sweeper.failure, app.wrong_rows()) == (None, 1)
