"""Manual overrides, and the rollback of everything but them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.world import Row, session

if TYPE_CHECKING:
    from tests.support.database import Database
    from tests.support.world import World


@pytest.mark.parametrize("priority", ["high", "medium", "low"])
def test_a_pin_holds_outside_workspaces_and_across_them(world: World, priority: str) -> None:
    repository = world.tracked()
    answer = world.pin(repository, priority)
    assert answer["manual_priority"] == priority
    assert world.row(repository) == Row(priority, False, 0, priority)

    workspace = world.add(repository)
    world.sync(repository)
    assert world.row(repository) == Row("high", True, 1, priority)
    world.remove(repository, workspace)
    world.sync(repository)
    assert world.row(repository) == Row(priority, False, 0, priority)


def test_a_cleared_override_stays_cleared(world: World) -> None:
    repository = world.tracked(priority="high")
    world.sync(repository)
    answer = world.pin(repository, None)
    assert answer["manual_priority"] is None
    for _ in range(2):
        assert world.row(repository) == Row("medium", False, 0)
        world.sync(repository)
        world.sweep()
        world.resync()


def test_clearing_an_override_that_was_never_adopted_works_as_well(world: World) -> None:
    outside, inside = world.tracked(priority="high"), world.tracked(priority="high")
    world.add(inside)
    world.pin(outside, None)
    world.pin(inside, None)
    assert world.row(outside) == Row("medium", False, 0)
    assert world.row(inside) == Row("high", True, 1)


def test_a_pin_answers_like_a_sync_and_is_recorded_once(world: World) -> None:
    repository = world.tracked()
    answer = world.pin(repository, "low")
    assert set(answer) == {*world.sync(repository), "old_manual_priority", "manual_priority"} - {
        "all_refused"
    }
    assert (answer["changed"], answer["old_manual_priority"]) == (1, None)
    again = world.pin(repository, "low")
    assert (again["changed"], again["old_manual_priority"]) == (0, "low")
    assert world.audit() == [("medium", "low", False, False, 0, "pin")]


def test_a_pin_on_a_workspace_repository_is_on_record_and_not_announced(world: World) -> None:
    world.call("open_priority_outbox")
    repository = world.tracked()
    world.add(repository)
    world.sync(repository)
    world.pin(repository, "low")
    world.pin(repository, None)
    assert world.audit()[1:] == [("high", "high", True, True, 1, "pin")] * 2
    overrides = world.execute(
        "select old_manual_priority, manual_priority from repository_priority_changes order by id"
    ).fetchall()
    assert overrides == [(None, None), (None, "low"), ("low", None)]
    claimed = world.call("claim_priority_changes", uuid.uuid4())["changes"]
    assert [(change["old_priority"], change["new_priority"]) for change in claimed] == [("medium", "high")]


def test_refuses_to_pin_what_is_not_tracked(world: World) -> None:
    with pytest.raises(psycopg.Error, match="is not tracked") as refused:
        world.pin(world.repository(), "high")
    assert refused.value.sqlstate == "PT404"
    assert refused.value.diag.message_hint


@pytest.mark.parametrize("priority", ["", "HIGH", "urgent"])
def test_refuses_a_priority_outside_the_vocabulary(world: World, priority: str) -> None:
    with pytest.raises(psycopg.Error, match=r"no priority .*, only high, medium, low") as refused:
        world.pin(world.tracked(), priority)
    assert refused.value.sqlstate == "22023"


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        ("set_manual_priority", "p_repository_id"),
        ("explain_repository_priority", "p_repository_id"),
        ("beat_workspace_priorities", "p_daemon_id"),
        ("release_workspace_priority_lease", "p_daemon_id"),
    ],
)
def test_refuses_a_null_id(world: World, call: str, argument: str) -> None:
    args = [None, "high"] if call == "set_manual_priority" else [None]
    with pytest.raises(psycopg.Error, match=f"{argument} is null, but must be") as refused:
        world.call(call, *args)
    assert refused.value.sqlstate == "22023"


# Rollback.


def test_the_rollback_takes_everything_back_but_overrides(world: World) -> None:
    workspace = world.workspace()
    plain, pinned, adopted, explicit, unknown = (
        world.tracked(), world.tracked(), world.tracked(priority="high"), world.tracked(),
        world.tracked(is_workspace_repo=None, workspace_count=None, priority=None),
    )  # fmt: skip
    world.sync(adopted)
    for repository in (plain, pinned, adopted):
        world.add(repository, workspace)
    world.pin(pinned, "low")
    world.sync(plain, pinned, adopted)
    world.execute("update tracked_repositories set priority = 'high' where repository_id = %s", explicit)
    world.execute("truncate repository_priority_changes")

    assert world.call("rollback_workspace_priorities")["changed"] == 5
    assert world.row(plain) == Row("medium", False, 0)
    assert world.row(pinned) == Row("low", False, 0, "low")
    assert world.row(adopted) == Row("high", False, 0, "high")
    assert world.row(explicit) == Row("high", False, 0, "high")
    assert world.row(unknown) == Row("medium", False, 0)
    assert sorted(world.audit(), key=str) == [
        ("high", "high", False, False, 0, "rollback"),
        ("high", "high", True, False, 0, "rollback"),
        ("high", "low", True, False, 0, "rollback"),
        ("high", "medium", True, False, 0, "rollback"),
        (None, "medium", None, False, 0, "rollback"),
    ]
    adopted_only = world.execute(
        "select manual_priority from repository_priority_changes where dispatched_at is not null"
    ).fetchall()
    assert adopted_only == [("high",)], "an override that was only adopted does not change the priority"
    assert world.call("rollback_workspace_priorities")["changed"] == 0
    world.sweep()
    assert world.row(plain) == Row("high", True, 1), "a daemon that still runs sets it all again"


def test_the_rollback_waits_for_nobody_and_tells_what_is_left(database: Database) -> None:
    world, holder = session(database), session(database, autocommit=False)
    workspace = world.workspace()
    free, held = world.tracked(), world.tracked()
    for repository in (free, held):
        world.add(repository, workspace)
    world.sync(free, held)
    holder.execute("select from tracked_repositories where repository_id = %s for update", held)
    answer = world.call("rollback_workspace_priorities")
    assert (answer["changed"], answer["locked"]) == (1, 1)
    assert world.row(held) == Row("high", True, 1)
    holder.connection.rollback()
    answer = world.call("rollback_workspace_priorities")
    assert (answer["changed"], answer["locked"]) == (1, 0)
