"""The measurement of the migrations measures: on a small table, where every figure is small."""

from __future__ import annotations

from priorityd.daemon.migration_files import migration_files
from tests.benchmarks.migrations import migrations

FILES = [file.name for file in migration_files()]


def test_every_file_is_measured_and_the_lock_of_the_first_is_seen() -> None:
    measured = migrations(tracked=3000, memberships=1000)
    assert [each["file"] for each in measured["alone"]] == FILES
    preparation, *prepared = measured["prepared"]
    assert preparation["file"].startswith("concurrently/")
    assert [each["file"] for each in prepared] == FILES
    assert [each["file"] for each in measured["rollback"][1:]] == ["rollback/uninstall.sql"]
    assert measured["alone"][0]["longest_access_exclusive_ms"] > 0
    assert prepared[0]["longest_access_exclusive_ms"] == 0
