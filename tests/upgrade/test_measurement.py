"""The measurement of the migrations measures: on a small table, where every figure is small."""

from __future__ import annotations

import psycopg
import pytest

from priorityd.daemon.migration_files import migration_files
from tests.benchmarks.migrations import migrations, watched
from tests.support.application import Application
from tests.support.database import Database

FILES = [file.name for file in migration_files()]


@pytest.mark.million
def test_every_file_is_measured() -> None:
    measured = migrations(tracked=3000, memberships=1000)
    assert [each["file"] for each in measured["alone"]] == FILES
    preparation, *prepared = measured["prepared"]
    assert preparation["file"].startswith("concurrently/")
    assert [each["file"] for each in prepared] == FILES
    assert [each["file"] for each in measured["rollback"][1:]] == ["rollback/uninstall.sql"]
    assert prepared[0]["longest_access_exclusive_ms"] == 0


def test_a_lock_is_seen_and_who_waits_for_it(database: Database) -> None:
    app = Application(database.connect())
    app.add(app.workspace(), app.repository())

    def lock() -> None:
        with psycopg.connect(database.url) as connection:
            connection.execute("lock table tracked_repositories in access exclusive mode")
            connection.execute("select pg_sleep(0.5)")

    measured = watched(database.url, lock)
    for figure in ("longest_access_exclusive_ms", "longest_read_ms", "longest_write_ms"):
        assert measured[figure] > 0, figure
    assert measured["longest_read_ms"] > 100, "it waited for the lock"
