"""Snapshots on a real database: rare while nothing happens, soon after something is heard of."""

from __future__ import annotations

import pytest

from priorityd.core import pacing
from priorityd.core.news import News
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.status import snapshotter
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.status.snapshotter import Snapshotter
from tests.support.application import Application
from tests.support.daemon_process import eventually
from tests.support.database import Database
from tests.support.servers import start_servers


def make(store: Store, heard: News, resynced: News) -> Snapshotter:
    return Snapshotter(
        store,
        news=[heard],
        resynced=resynced,
        database_clock=DatabaseClock(),
        metrics=Metrics().snapshots,
        liveness=Liveness(),
    )


@pytest.mark.long
async def test_a_count_that_fails_costs_nothing_in_the_pace(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        start_servers(database.url) as server,
        open_store(server.url, server.service_role_key) as store,
    ):
        watching = make(store, News(), News())
        database.connect().execute("alter function workspace_priority_snapshot rename to counted")
        for _ in range(3):
            assert await watching.turn() <= snapshotter.RETRY_SECONDS
            monkeypatch.setattr(watching, "_ended_at", 0.0)
        assert watching.latest is None
        assert watching.overdue_seconds() > 0
        database.connect().execute("alter function counted rename to workspace_priority_snapshot")
        assert await watching.turn() <= snapshotter.INTERVAL_SECONDS
        assert watching.latest is not None
        assert watching.overdue_seconds() == 0


async def test_what_is_not_high_is_looked_at_again_soon(database: Database) -> None:
    app, resynced = Application(database.connect()), News()
    app.add(app.workspace(), app.repository())
    async with (
        start_servers(database.url) as server,
        open_store(server.url, server.service_role_key) as store,
    ):
        watching = make(store, News(), resynced)
        assert await watching.turn() < snapshotter.INTERVAL_SECONDS
        assert watching.inverted_seconds() == 0, "one count may have met a change on its way"
        resynced.tell()
        await watching.turn()
        assert watching.inverted_seconds() > 0
        await store.sweep("manual", 10)
        resynced.tell()
        await watching.turn()
        assert watching.inverted_seconds() == 0


async def test_after_a_full_resync_it_counts_at_once(database: Database) -> None:
    resynced = News()
    async with (
        start_servers(database.url) as server,
        open_store(server.url, server.service_role_key) as store,
    ):
        watching = make(store, News(), resynced)
        await watching.turn()
        first = watching.latest
        await watching.turn()
        assert watching.latest is first
        resynced.tell()
        await watching.turn()
        assert watching.latest is not first


async def test_a_change_that_is_heard_of_ends_the_long_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("INTERVAL_SECONDS", 0.01), ("QUIET_INTERVAL_SECONDS", 3600), ("SHARE", 1)):
        monkeypatch.setattr(snapshotter, name, seconds)
    monkeypatch.setattr(pacing, "QUIET_LOOKS", 1)
    app, heard = Application(database.connect()), News()
    async with (
        start_servers(database.url) as server,
        open_store(server.url, server.service_role_key) as store,
    ):
        watching = make(store, heard, News())

        async def counts_anew() -> bool:
            before = watching.latest
            await watching.turn()
            return watching.latest is not before

        await eventually(counts_anew)
        # The second finds the same, so it is the last one for an hour.
        await eventually(counts_anew)
        assert await watching.turn() > 3000
        app.repository()
        heard.tell()
        await eventually(counts_anew)
        assert watching.latest is not None
        assert sum(row.count for row in watching.latest.repositories) == 1
