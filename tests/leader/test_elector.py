"""Electors on a real database, turn by turn."""

from __future__ import annotations

from collections.abc import Callable

from structlog.testing import capture_logs

from priorityd.core.leader.lease import ASK_AFTER_SECONDS
from priorityd.daemon.clock import monotonic
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
    lease.next_ask_at = monotonic()
    assert await elector.turn() <= 1, "it asks again soon"
    assert parts.shared.leadership.is_held()
    assert elector.failure is not None
    assert "no" in str(elector.failure)


async def test_an_outage_is_told_once_and_asked_about_ever_more_rarely(
    database: Database, parts: Parts
) -> None:
    elector, lease, rests = parts.agents.elector, parts.shared.leadership.lease, []
    database.connect().execute("alter table priorityd.leases rename to gone")
    with capture_logs() as logs:
        for _ in range(3):
            lease.next_ask_at = monotonic()
            rests.append(await elector.turn())
    told = [line["log_level"] for line in logs if line["event"] == "lease_renewal_failed"]
    assert told == ["warning", "debug", "debug"]
    assert rests == sorted(rests)
    assert rests[2] > 3 * rests[0]
