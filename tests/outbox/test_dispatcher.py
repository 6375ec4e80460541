"""The dispatcher on a real database behind the sandbox's REST surface, against the stand-in for Inngest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from priorityd.core.jobs.events import REPOSITORY_SYNC
from priorityd.core.outbox.announcements import PRIORITY_CHANGED
from priorityd.daemon.database.store import open_store
from priorityd.daemon.inngest.sender import EventSender, open_event_sender
from priorityd.daemon.jobs.ordered_queue import OrderedQueue
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.metrics import PREFIX
from priorityd.daemon.outbox.dispatcher import Dispatcher
from priorityd.daemon.outbox.outbox import Outbox
from priorityd.daemon.status.metrics import Metrics
from tests.support.answers import answering, http
from tests.support.application import Application
from tests.support.daemon_process import eventually
from tests.support.database import Database
from tests.support.event_api import Faults
from tests.support.faults import Faults as ServerFaults
from tests.support.faults import misbehave
from tests.support.inngest import StandIn
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers import Servers, start_servers


@dataclass
class Bench:
    """A database with an application, its REST surface, and Inngest's stand-in."""

    server: Servers
    app: Application
    inngest: StandIn

    @asynccontextmanager
    async def dispatcher(
        self, *, claim_seconds: float = 60, sending_seconds: float = PATIENCE_SECONDS, **parts: Any
    ) -> AsyncIterator[Dispatcher]:
        """A dispatcher that runs for the length of the block."""
        metrics = Metrics()
        async with (
            open_store(self.server.url, self.server.service_role_key) as store,
            open_event_sender(
                self.inngest.settings(), max_attempts=1, timeout_seconds=sending_seconds
            ) as sender,
            anyio.create_task_group() as tasks,
        ):
            dispatcher = Dispatcher(
                Outbox(store, uuid4()),
                parts.get("sender", sender),
                claim_seconds=claim_seconds,
                form="score",
                sync_new=parts.get("sync_new", True),
                queue=OrderedQueue(store) if parts.get("in_order") else None,
                metrics=metrics.outbox,
                liveness=Liveness(),
            )
            self.metrics = metrics
            tasks.start_soon(dispatcher.run)
            await eventually(lambda: dispatcher._opened)
            yield dispatcher
            tasks.cancel_scope.cancel()

    def change(self, count: int = 1) -> list[UUID]:
        """Add so many repositories to a workspace, and sync them."""
        workspace, repositories = self.app.workspace(), self.app.repositories(count)
        self.app.add(workspace, *repositories)
        self.app.connection.execute("select sync_workspace_priorities(%s)", (repositories,))
        return repositories

    def pending(self) -> int:
        return self.count("dispatched_at is null and abandoned_at is null")

    def count(self, condition: str) -> int:
        query = f"select count(*) from repository_priority_changes where {condition}"
        row = self.app.connection.execute(query.encode()).fetchone()
        assert row is not None
        number: int = row[0]
        return number

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(PREFIX + name, labels) or 0.0

    def announced(self) -> list[str]:
        """The repositories of the announcements, in the order in which they came, repeats left out."""
        return [event["data"]["repositoryId"] for event in self.inngest.api.named(PRIORITY_CHANGED)]


@pytest.fixture
async def bench(database: Database, event_api: StandIn) -> AsyncIterator[Bench]:
    async with start_servers(database.url, faults=ServerFaults()) as server:
        bench = Bench(server, Application(database.connect()), event_api)
        bench.app.connection.execute("select open_priority_outbox()")
        yield bench


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


async def test_every_change_is_announced_once_and_new_workspace_repositories_are_synced(bench: Bench) -> None:
    repositories = bench.change(1200)
    async with bench.dispatcher() as dispatcher:
        dispatcher.wake()
        await eventually(lambda: bench.pending() == 0)
    assert sorted(bench.announced()) == sorted(map(str, repositories))
    assert len(bench.inngest.api.named(REPOSITORY_SYNC)) == 1200
    assert len(bench.inngest.api.accepted) == 2400
    assert bench.metric("dispatched_total", event=PRIORITY_CHANGED, outcome="sent") == 1200
    assert bench.metric("dispatched_total", event=REPOSITORY_SYNC, outcome="sent") == 1200


async def test_where_new_workspace_repositories_are_not_synced_they_are_announced(
    bench: Bench,
) -> None:
    bench.change()
    async with bench.dispatcher(sync_new=False):
        await eventually(lambda: bench.pending() == 0)
    assert len(bench.announced()) == len(bench.inngest.api.accepted) == 1


async def test_where_jobs_are_queued_in_order_the_syncs_are_too_and_once(bench: Bench) -> None:
    repositories = bench.change(20)
    async with bench.dispatcher(in_order=True):
        await eventually(lambda: bench.pending() == 0)
    assert bench.inngest.api.named(REPOSITORY_SYNC) == []
    assert len(bench.announced()) == 20
    assert bench.metric("dispatched_total", event=REPOSITORY_SYNC, outcome="sent") == 20
    # Announced again, as after a crash before they were marked.
    bench.app.connection.execute(
        "update repository_priority_changes set dispatched_at = null, next_attempt_at = clock_timestamp();"
        "update priorityd.outbox set pending_after = 0, proposed_after = 0, proposed_before = null"
    )
    async with bench.dispatcher(in_order=True):
        await eventually(lambda: bench.pending() == 0)
    queued = bench.app.connection.execute("select repository_id from background_jobs").fetchall()
    assert sorted(id_ for (id_,) in queued) == sorted(repositories)


async def test_where_the_table_of_jobs_can_hold_none_they_are_synced_at_once(bench: Bench) -> None:
    bench.app.connection.execute(
        "create type status as enum ('open', 'done'); drop table background_jobs cascade;"
        "create table background_jobs (id uuid primary key, type text, payload jsonb, status status,"
        " repository_id uuid, created_at timestamptz, started_at timestamptz, completed_at timestamptz,"
        " failed_at timestamptz)"
    )
    bench.change()
    async with bench.dispatcher(in_order=True):
        await eventually(lambda: bench.pending() == 0)
    assert len(bench.inngest.api.named(REPOSITORY_SYNC)) == 1


async def test_a_change_goes_out_as_soon_as_it_is_told_of(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("priorityd.daemon.outbox.dispatcher.TICK_SECONDS", 3600.0)
    async with bench.dispatcher() as dispatcher:
        await eventually(lambda: bench.inngest.api.attempts == 0)
        bench.change()
        dispatcher.wake()
        await eventually(lambda: bench.pending() == 0)


async def test_a_change_that_nobody_told_of_goes_out_by_timer(bench: Bench) -> None:
    async with bench.dispatcher():
        bench.change()
        await eventually(lambda: bench.pending() == 0)


async def test_changes_of_a_repository_are_announced_in_their_order(bench: Bench) -> None:
    (repository,) = bench.change()
    for _ in range(3):
        bench.app.connection.execute("delete from workspace_repositories")
        bench.app.connection.execute("select sync_workspace_priorities(%s)", ([repository],))
        bench.app.add(bench.app.workspace(), repository)
        bench.app.connection.execute("select sync_workspace_priorities(%s)", ([repository],))
    async with bench.dispatcher():
        await eventually(lambda: bench.pending() == 0)
    told = [event["data"] for event in bench.inngest.api.named(PRIORITY_CHANGED)]
    assert [change["newPriority"] for change in told] == ["high", *["medium", "high"] * 3]
    assert [change["changeId"] for change in told] == sorted(change["changeId"] for change in told)
    assert len(bench.inngest.api.named(REPOSITORY_SYNC)) == 4


async def test_history_is_not_announced(bench: Bench) -> None:
    bench.app.connection.execute("update priorityd.outbox set announce_after = null")
    bench.change(3)
    async with bench.dispatcher() as dispatcher:
        (new,) = bench.change()
        dispatcher.wake()
        await eventually(lambda: bench.announced() == [str(new)])
        await eventually(lambda: bench.count("dispatched_at is not null") == 1)
    assert bench.pending() == 3
    depth = bench.app.connection.execute("select priority_outbox_depth() -> 'pending'").fetchone()
    assert depth == (0,), "history does not wait"


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


async def test_two_dispatchers_share_the_work(bench: Bench) -> None:
    repositories = bench.change(3000)
    async with bench.dispatcher(), bench.dispatcher():
        await eventually(lambda: bench.pending() == 0)
    assert sorted(bench.announced()) == sorted(map(str, repositories))
    assert len(bench.inngest.api.accepted) == 6000, "nobody sent what the other had claimed"
    owners = bench.app.connection.execute(
        "select count(distinct daemon_id) from repository_priority_changes"
    ).fetchone()
    assert owners == (2,)


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
