"""Trimming the trail."""

from __future__ import annotations

from typing import Any

from priorityd.daemon.migration_files import migration_files
from priorityd.daemon.sandbox.migrate import run_file
from tests.support.outbox_calls import changed, claim, ids, opened
from tests.support.schemas import SCHEMAS
from tests.support.world import World


def aged(world: World, days: int) -> None:
    world.execute(
        "update repository_priority_changes set changed_at = now() - make_interval(days => %s)", days
    )


def trim(world: World, keep_days: int = 90, limit: int = 5000) -> list[dict[str, Any]]:
    pages = [world.call("trim_priority_changes", keep_days, 0, limit)]
    while pages[-1]["next_after"] is not None:
        pages.append(world.call("trim_priority_changes", keep_days, pages[-1]["next_after"], limit))
    return pages


def test_old_changes_are_trimmed_in_batches_and_young_ones_stay(world: World) -> None:
    repository = changed(world, times=25)
    aged(world, 91)
    changed(world, repository, times=2)
    pages = trim(world, limit=10)
    assert [page["trimmed"] for page in pages] == [10, 10, 5]
    assert world.value("select count(*) from repository_priority_changes") == 2
    assert [page["trimmed"] for page in trim(world)] == [0]


def test_pending_changes_stay_however_old_and_stop_nothing(outbox: World) -> None:
    changed(outbox, times=10)
    done = ids(claim(outbox))
    outbox.call("mark_priority_changes_dispatched", done[5:9])
    outbox.call("abandon_priority_changes", done[9:], ["refused"])
    aged(outbox, 200)
    assert sum(page["trimmed"] for page in trim(outbox, limit=5)) == 5
    left = outbox.execute("select id from repository_priority_changes order by id").fetchall()
    assert [row[0] for row in left] == done[:5]


def test_what_was_never_to_be_announced_is_trimmed(outbox: World) -> None:
    outbox.execute("update priorityd.outbox set announce_after = null")
    changed(outbox, times=3)
    opened(outbox)
    aged(outbox, 91)
    assert sum(page["trimmed"] for page in trim(outbox)) == 3


def test_without_the_outbox_the_trail_is_trimmed_as_well(bare: World) -> None:
    SCHEMAS["enum"].create(bare.connection)
    for file in migration_files():
        if "outbox" not in file.name:
            run_file(bare.connection, file)
    changed(bare, times=3)
    aged(bare, 91)
    assert sum(page["trimmed"] for page in trim(bare)) == 3
