"""Electors on a real database, turn by turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import uuid4

import anyio
import pytest
from anyio.abc import SocketStream
from structlog.testing import capture_logs

from priorityd.core.heartbeat import Heartbeat
from priorityd.core.leader.lease import ASK_AFTER_SECONDS, LEASE_SECONDS
from priorityd.daemon.clock import monotonic, since_boot
from priorityd.daemon.leader.elector import Elector
from priorityd.daemon.leader.leadership import Leadership
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.status.metrics import Metrics
from tests.support.answers import answering, http
from tests.support.daemon_process import eventually
from tests.support.database import Database
from tests.support.parts import Parts


async def test_of_two_daemons_one_gets_the_lease(another_daemon: Callable[[], Parts]) -> None:
    one, other = another_daemon(), another_daemon()
    gained: list[str] = []
    one.shared.leadership.gained.subscribe(lambda: gained.append("one"))
    other.shared.leadership.gained.subscribe(lambda: gained.append("other"))
    until_renewal, until_expiry = await one.agents.elector.turn(), await other.agents.elector.turn()
    assert (one.shared.leadership.is_held(), other.shared.leadership.is_held()) == (True, False)
    assert gained == ["one"]
    assert until_renewal <= ASK_AFTER_SECONDS
    assert until_expiry <= ASK_AFTER_SECONDS, "before it can be given the lease, for the heartbeat row"


async def test_each_question_writes_the_heartbeat_row_and_a_new_connection_asks_at_once(
    database: Database, another_daemon: Callable[[], Parts]
) -> None:
    parts = another_daemon()
    elector, heartbeat = parts.agents.elector, parts.shared.heartbeat
    beat_at = "select beat_at from workspace_priority_heartbeats"
    await elector.turn()
    ((first,),) = database.connect().execute(beat_at).fetchall()
    assert heartbeat.due_at is None, "no connection was live to bring it back"
    heartbeat.connected(monotonic())
    await elector.turn()
    ((second,),) = database.connect().execute(beat_at).fetchall()
    assert second > first
    assert heartbeat.due_at is not None


async def test_a_connection_made_while_it_asks_gets_a_row_of_its_own() -> None:
    asked, answered = anyio.Event(), anyio.Event()
    answer = http(200, {"held": True, "expires_in_seconds": LEASE_SECONDS})

    async def slowly(connection: SocketStream) -> None:
        asked.set()
        await answered.wait()
        await connection.send(answer)

    async with answering(slowly, answer) as (store, _), anyio.create_task_group() as tasks:
        heartbeat, leadership = Heartbeat(), Leadership()
        elector = Elector(
            store, uuid4(), leadership, heartbeat, metrics=Metrics().leader, liveness=Liveness()
        )
        rests: list[float] = []

        async def turn() -> None:
            rests.append(await elector.turn())

        tasks.start_soon(turn)
        await asked.wait()
        heartbeat.connected(monotonic())
        answered.set()
        await eventually(lambda: rests)
        assert rests == [0]
        assert heartbeat.due_at is None, "what was on its way is older than the connection"
        assert await elector.turn() > 0
        assert heartbeat.due_at is not None


async def test_at_its_end_it_leaves_the_lease_to_the_next(another_daemon: Callable[[], Parts]) -> None:
    one, other = another_daemon(), another_daemon()
    await one.agents.elector.turn()
    one.agents.elector.stop()
    await one.agents.elector.run()
    await other.agents.elector.turn()
    assert other.shared.leadership.is_held()


async def test_a_question_that_fails_takes_nothing_away_before_the_lease_expires(
    database: Database, parts: Parts
) -> None:
    elector, lease = parts.agents.elector, parts.shared.leadership.lease
    await elector.turn()
    assert elector.answered_at is not None
    assert elector.failure is None
    database.connect().execute(
        "create or replace function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create trigger refuse before insert or update on priorityd.leases for each row"
        " execute function refuse()"
    )
    lease.next_ask_at = since_boot()
    assert await elector.turn() <= 1, "it asks again soon"
    assert parts.shared.leadership.is_held()
    assert elector.failure is not None
    assert "no" in str(elector.failure)


async def test_a_scrape_tells_of_no_lease_that_is_over_though_the_loop_has_not_turned(parts: Parts) -> None:
    """As right after SIGCONT: the event loop, which refreshes what is read and not counted, comes later."""
    await parts.agents.elector.turn()
    parts.metrics.refresh()
    assert parts.metric("leader") == 1
    parts.shared.leadership.lease.answered(
        since_boot() - LEASE_SECONDS, held=True, expires_in_seconds=LEASE_SECONDS
    )
    assert parts.metric("leader") == 0


async def test_in_a_machine_that_slept_it_leads_again_only_when_it_is_given_the_lease(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux's CLOCK_MONOTONIC, by which the event loop goes, stands still meanwhile."""
    elector, leadership = parts.agents.elector, parts.shared.leadership
    gained: list[bool] = []
    leadership.gained.subscribe(lambda: gained.append(leadership.is_held()))
    await elector.turn()
    clock = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + LEASE_SECONDS)
    assert not leadership.is_held()
    await elector.turn()
    assert leadership.is_held()
    assert gained == [True, True]


async def test_an_outage_is_told_once_and_asked_about_ever_more_rarely(
    database: Database, parts: Parts
) -> None:
    elector, lease, rests = parts.agents.elector, parts.shared.leadership.lease, []
    database.connect().execute("alter table priorityd.leases rename to gone")
    with capture_logs() as logs:
        for _ in range(3):
            lease.next_ask_at = since_boot()
            rests.append(await elector.turn())
    told = [line["log_level"] for line in logs if line["event"] == "lease_renewal_failed"]
    assert told == ["warning", "debug", "debug"]
    assert rests == sorted(rests)
    assert rests[2] > 3 * rests[0]
