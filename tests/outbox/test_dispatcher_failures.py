"""A dispatcher when Inngest or the database fails, and when it is told to stop."""

from __future__ import annotations

from itertools import groupby
from typing import Any
from uuid import uuid4

import pytest

from priorityd.core.outbox.announcements import PRIORITY_CHANGED
from priorityd.daemon.inngest.sender import EventSender, open_event_sender
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.outbox.dispatcher import Dispatcher
from priorityd.daemon.outbox.outbox import Outbox
from priorityd.daemon.status.metrics import Metrics
from tests.support.answers import answering, http
from tests.support.daemon_process import eventually
from tests.support.dispatching import Bench
from tests.support.event_api import Faults
from tests.support.faults import misbehave
from tests.support.inngest import StandIn
from tests.support.patience import PATIENCE_SECONDS


async def test_between_a_call_that_failed_and_the_next_it_shows_that_it_lives(event_api: StandIn) -> None:
    async with (
        answering(http(503, {"code": "PGRST000", "message": "no database"})) as (store, told),
        open_event_sender(event_api.settings(), max_attempts=1) as sender,
    ):

        class Told(Liveness):
            def tick(self, part: str) -> None:
                told.append(part)

        dispatcher = Dispatcher(
            Outbox(store, uuid4()),
            sender,
            claim_seconds=60,
            form="score",
            sync_new=False,
            metrics=Metrics().outbox,
            liveness=Told(),
        )
        dispatcher._opened = True
        await dispatcher.turn()
    assert [each for each, _ in groupby(told)] == ["unavailable", "dispatcher", "unavailable"]


@pytest.mark.parametrize(
    "faults",
    [
        Faults(status=503, requests=2),
        Faults(status=500, accept=7, requests=2),
        Faults(status=429, retry_after=2, requests=1),
        Faults(status=401, requests=1),
        Faults(reset="after", requests=2),
        Faults(hang=True, requests=1),
    ],
    ids=["down", "taken in part", "asked to wait", "key refused", "answer lost", "hangs"],
)
async def test_trouble_loses_nothing_and_repeats_only_ids(bench: Bench, faults: Faults) -> None:
    repositories = bench.change(20)
    bench.inngest.api.faults = faults
    # Only what is never answered is given up soon.
    sending_seconds = 1 if faults.hang else PATIENCE_SECONDS
    async with bench.dispatcher(sending_seconds=sending_seconds) as dispatcher:
        await eventually(lambda: dispatcher.last_error is not None)
        await eventually(lambda: bench.count("last_error is not null and daemon_id is null") == 20)
        assert bench.metric("dispatched_total", event=PRIORITY_CHANGED, outcome="failed") >= 20
        await eventually(lambda: bench.pending() == 0)
        assert dispatcher.last_error is None
    assert sorted(bench.announced()) == sorted(map(str, repositories))
    assert bench.count("last_error is not null") == 0


@pytest.mark.parametrize("status", [400, 413])
async def test_a_change_that_is_refused_is_parked_with_the_reason_and_stops_no_other(
    bench: Bench, status: int
) -> None:
    repositories = bench.change(50)
    bad = repositories[33]
    bench.inngest.api.faults = Faults(refuse=str(bad), refuse_status=status)
    async with bench.dispatcher() as dispatcher:
        await eventually(lambda: bench.pending() == 0)
        bench.change()
        dispatcher.wake()
        await eventually(lambda: len(bench.announced()) == 50)
    row = bench.app.connection.execute(
        "select repository_id, last_error from repository_priority_changes where abandoned_at is not null"
    ).fetchone()
    assert row is not None
    assert row[0] == bad
    assert "told to refuse this event" in row[1]
    assert str(bad) not in bench.announced()
    assert bench.metric("dispatched_total", event=PRIORITY_CHANGED, outcome="refused") == 1


async def test_what_a_dead_dispatcher_had_claimed_is_sent_when_its_claim_runs_out(bench: Bench) -> None:
    repositories = bench.change(5)
    bench.app.connection.execute("select claim_priority_changes(%s, 500, 2)", (uuid4(),))
    async with bench.dispatcher():
        await eventually(lambda: bench.pending() == 0)
    assert sorted(bench.announced()) == sorted(map(str, repositories))


async def test_told_to_stop_it_sends_what_is_pending_first(bench: Bench) -> None:
    async with bench.dispatcher() as dispatcher:
        repositories = bench.change(1100)
        dispatcher.stop()
        await eventually(lambda: bench.pending() == 0)
    assert len(bench.announced()) == len(repositories)


async def test_after_an_outage_of_the_database_of_any_length_changes_are_announced_within_ten_seconds(
    bench: Bench,
) -> None:
    async with bench.dispatcher() as dispatcher:
        dispatcher.stop()
        await eventually(lambda: not dispatcher.has_more())
        bench.change()
        misbehave(bench.server, "rest/fail?status=400&sqlstate=P0001", seconds=3600)
        rests = []
        for _ in range(12):
            dispatcher._database_backoff.retry_at = 0.0
            rests.append(await dispatcher.turn())
        assert max(rests) <= 10
    assert bench.pending() == 1


async def test_told_to_stop_while_inngest_is_down_it_stops(bench: Bench) -> None:
    bench.inngest.api.faults = Faults(status=503)
    bench.change(5)
    async with bench.dispatcher() as dispatcher:
        await eventually(lambda: dispatcher.last_error is not None)
        dispatcher.stop()
        attempts = bench.inngest.api.attempts
        await eventually(lambda: bench.count("daemon_id is null") == 5)
    assert bench.inngest.api.attempts <= attempts + 1
    assert bench.pending() == 5


async def test_cancelled_in_the_middle_it_gives_its_claims_back(bench: Bench) -> None:
    bench.inngest.api.faults = Faults(hang=True)
    bench.change(5)
    async with open_event_sender(bench.inngest.settings()) as patient, bench.dispatcher(sender=patient):
        await eventually(lambda: bench.inngest.api.attempts == 1)
        assert bench.count("daemon_id is not null") == 5
    assert bench.count("daemon_id is null and next_attempt_at <= now()") == 5


async def test_what_was_sent_is_marked_even_if_the_database_was_gone_meanwhile(bench: Bench) -> None:
    bench.change(5)
    async with bench.dispatcher(sender=_Interrupting(bench)) as dispatcher:
        await eventually(lambda: dispatcher.last_error is not None)
        bench.app.connection.execute(
            "alter function mark_priority_changes_dispatched_gone(bigint[])"
            " rename to mark_priority_changes_dispatched; notify pgrst, 'reload schema'"
        )
        await eventually(lambda: bench.pending() == 0)
    assert len(bench.inngest.api.accepted) == 10, "sent once"


class _Interrupting:
    """Sends, and makes the database forget how to mark what was sent."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def send(self, events: Any, on_sent: Any) -> Any:
        async with open_event_sender(self._bench.inngest.settings()) as sender:
            assert isinstance(sender, EventSender)
            refused = await sender.send(events, on_sent)
        self._bench.app.connection.execute(
            "alter function mark_priority_changes_dispatched(bigint[])"
            " rename to mark_priority_changes_dispatched_gone"
        )
        self._bench.app.connection.execute("notify pgrst, 'reload schema'")
        return refused


async def test_changes_whose_syncs_can_not_be_queued_for_now_are_put_back(bench: Bench) -> None:
    async with bench.dispatcher(in_order=True, claim_seconds=3600) as dispatcher:
        dispatcher.stop()
        await eventually(lambda: not dispatcher.has_more())
        (repository,) = bench.change()
        failing = "rest/fail?function=queue_repository_jobs"
        misbehave(bench.server, f"{failing}&status=400&sqlstate=55P03", seconds=3600)
        rests = []
        for _ in range(4):
            dispatcher._database_backoff.retry_at = 0.0
            rests.append(await dispatcher.turn())
            assert bench.count("daemon_id is not null") == 0
        assert rests[0] < rests[-1] <= 10
        misbehave(bench.server, failing, seconds=0)
        dispatcher._database_backoff.retry_at = 0.0
        await dispatcher.turn()
    assert bench.announced() == [str(repository)]
