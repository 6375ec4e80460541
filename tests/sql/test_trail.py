"""What is written, and what the trail has of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.world import Row

if TYPE_CHECKING:
    from tests.support.database import Database
    from tests.support.world import World


def test_a_row_that_is_right_is_not_written(world: World) -> None:
    repositories = [world.tracked(), world.tracked(), world.tracked(priority="high")]
    world.add(repositories[0])
    world.sync(*repositories)
    before = world.everything()

    for answer in (world.sync(*repositories), world.sweep(), *world.resync()):
        assert (answer["changed"], answer["changes"]) == (0, [])
    assert world.everything() == before


def test_records_one_row_for_each_change_of_priority_or_flag(world: World) -> None:
    repository = world.tracked()
    first = world.add(repository)
    world.sync(repository, p_trigger="event")
    second = world.add(repository)
    (change,) = world.sync(repository, p_trigger="event")["changes"]
    assert (change["old_workspace_count"], change["workspace_count"]) == (1, 2), "the count is written"
    world.remove(repository, second)
    world.sweep()
    world.remove(repository, first)
    world.resync()

    assert world.audit(repository) == [
        ("medium", "high", False, True, 1, "event"),
        ("high", "medium", True, False, 0, "resync"),
    ]


def test_records_a_change_of_the_flag_alone(world: World) -> None:
    repository = world.tracked(priority="high")
    world.add(repository)
    answer = world.sync(repository)
    assert answer["changes"][0]["old_priority"] == answer["changes"][0]["new_priority"] == "high"
    assert world.audit(repository) == [("high", "high", False, True, 1, "manual")]


def test_records_that_an_override_is_adopted_and_has_nothing_announced(world: World) -> None:
    repository = world.tracked(priority="high")
    assert world.sync(repository)["changed"] == 1
    assert world.audit() == [("high", "high", False, False, 0, "manual")]
    assert world.execute(
        "select old_manual_priority, manual_priority, dispatched_at is null from repository_priority_changes"
    ).fetchall() == [(None, "high", False)]


def test_the_trail_goes_with_the_transaction(world: World, database: Database) -> None:
    repository = world.tracked()
    world.add(repository)
    other = database.connect(autocommit=False)
    other.execute("select sync_workspace_priorities(array[%s])", [repository])
    other.rollback()
    assert world.audit() == []
    assert world.row(repository) == Row("medium", False, 0)


def test_a_new_change_waits_to_be_dispatched(world: World) -> None:
    world.call("open_priority_outbox")
    repository = world.tracked()
    world.add(repository)
    world.sync(repository)
    assert world.execute(
        """select attempts, daemon_id, dispatched_at, abandoned_at, last_error
           from repository_priority_changes"""
    ).fetchall() == [(0, None, None, None, None)]
    snapshot = world.call("workspace_priority_snapshot")
    assert snapshot["outbox_pending"] == 1
    assert snapshot["outbox_oldest_seconds"] > 0
