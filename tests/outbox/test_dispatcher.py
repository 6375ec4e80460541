"""What a dispatcher announces, and when."""

from __future__ import annotations

import pytest

from priorityd.core.jobs.events import REPOSITORY_SYNC
from priorityd.core.outbox.announcements import PRIORITY_CHANGED
from tests.support.daemon_process import eventually
from tests.support.dispatching import Bench


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
