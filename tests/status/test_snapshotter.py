"""Snapshots on a real database: rare while nothing happens, soon after something is heard of."""

from __future__ import annotations

import anyio
import pytest

from priorityd.core import pacing
from priorityd.core.news import News
from priorityd.daemon.database.store import open_store
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.sandbox.server import serve_sandbox
from priorityd.daemon.status import snapshotter
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.status.snapshotter import Snapshotter
from tests.support.application import Application
from tests.support.daemon_process import eventually
from tests.support.database import Database


async def test_a_change_that_is_heard_of_ends_the_long_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("INTERVAL_SECONDS", 0.01), ("QUIET_INTERVAL_SECONDS", 3600), ("SHARE", 1)):
        monkeypatch.setattr(snapshotter, name, seconds)
    monkeypatch.setattr(pacing, "QUIET_LOOKS", 1)
    app, heard = Application(database.connect()), News()
    async with (
        serve_sandbox(database.url) as server,
        open_store(server.url, server.service_role_key) as store,
        anyio.create_task_group() as tasks,
    ):
        watching = Snapshotter(store, news=[heard], metrics=Metrics().snapshots, liveness=Liveness())
        tasks.start_soon(watching.run)
        first = await eventually(lambda: watching.latest)
        # The second finds the same, so it is the last one for an hour.
        second = await eventually(lambda: watching.latest is not first and watching.latest)
        app.repository()
        heard.tell()
        third = await eventually(lambda: watching.latest is not second and watching.latest)
        assert sum(row.count for row in third.repositories) == 1
        watching.stop()
