"""What each row becomes: the rules, and what the calls that apply them answer."""

from __future__ import annotations

import uuid
from itertools import product
from typing import TYPE_CHECKING

import psycopg
import pytest

from priorityd.core.priorities import TRIGGERS
from tests.support.world import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tests.support.database import Database
    from tests.support.world import Json, World

PRIORITIES = (None, "high", "medium", "low")


def by_sync(world: World, repository: UUID) -> Json:
    return world.sync(repository)


def by_sweep(world: World, repository: UUID) -> Json:
    return world.sweep()


def by_resync(world: World, repository: UUID) -> Json:
    return world.resync()[0]


repairers = pytest.mark.parametrize("repair", [by_sync, by_sweep, by_resync])


@repairers
def test_makes_every_combination_of_columns_right(
    world: World, repair: Callable[[World, UUID], Json]
) -> None:
    """All 4 priorities × 4 overrides × 3 flags × 4 counts × 0 to 2 workspaces, against the rules."""
    first, second = world.workspace(), world.workspace()
    expected: dict[UUID, Row] = {}
    wrong = set()
    for priority, manual, flag, count, workspaces in product(
        PRIORITIES, PRIORITIES, (None, False, True), (None, 0, 1, 2), (0, 1, 2)
    ):
        repository = world.tracked(
            priority=priority, manual_priority=manual, is_workspace_repo=flag, workspace_count=count
        )
        for workspace in (first, second)[:workspaces]:
            world.add(repository, workspace)
        if priority == "high" and not flag and manual is None and not count and not workspaces:
            manual_after: str | None = "high"
        else:
            manual_after = manual
        outside = manual_after or "medium"
        expected[repository] = Row(
            "high" if workspaces else outside, workspaces > 0, workspaces, manual_after
        )
        if expected[repository] != Row(priority, flag, count, manual):
            wrong.add(str(repository))

    answer = world.sync(*expected) if repair is by_sync else repair(world, next(iter(expected)))

    assert {repository: world.row(repository) for repository in expected} == expected
    assert {change["repository_id"] for change in answer["changes"]} == wrong
    assert answer["changed"] == len(wrong)
    assert world.sync(*expected)["changed"] == 0


@repairers
def test_raises_on_the_first_workspace_and_lowers_after_the_last(
    world: World, repair: Callable[[World, UUID], Json]
) -> None:
    repository = world.tracked()

    first = world.add(repository)
    answer = repair(world, repository)
    assert world.row(repository) == Row("high", True, 1)
    assert (answer["changed"], answer["workspace_repos"], answer["tracked_only_repos"]) == (1, 1, 0)

    second = world.add(repository)
    repair(world, repository)
    assert world.row(repository) == Row("high", True, 2)

    world.remove(repository, first)
    repair(world, repository)
    assert world.row(repository) == Row("high", True, 1)

    world.remove(repository, second)
    answer = repair(world, repository)
    assert world.row(repository) == Row("medium", False, 0)
    assert (answer["changed"], answer["workspace_repos"], answer["tracked_only_repos"]) == (1, 0, 1)


@repairers
def test_lowers_every_repository_of_a_deleted_workspace(
    world: World, repair: Callable[[World, UUID], Json]
) -> None:
    doomed, other = world.workspace(), world.workspace()
    only_there, also_elsewhere = world.tracked(), world.tracked()
    world.add(only_there, doomed)
    world.add(also_elsewhere, doomed)
    world.add(also_elsewhere, other)
    world.sync(only_there, also_elsewhere)

    world.execute("delete from workspaces where id = %s", doomed)
    repair(world, only_there)
    repair(world, also_elsewhere)

    assert world.row(only_there) == Row("medium", False, 0)
    assert world.row(also_elsewhere) == Row("high", True, 1)


@repairers
def test_remembers_an_explicit_high_across_workspaces(
    world: World, repair: Callable[[World, UUID], Json]
) -> None:
    repository = world.tracked(priority="high")
    repair(world, repository)
    assert world.row(repository) == Row("high", False, 0, "high")

    workspace = world.add(repository)
    repair(world, repository)
    assert world.row(repository) == Row("high", True, 1, "high")

    world.remove(repository, workspace)
    repair(world, repository)
    assert world.row(repository) == Row("high", False, 0, "high")


@repairers
def test_takes_no_high_for_an_override_while_a_workspace_holds_the_repository(
    world: World, repair: Callable[[World, UUID], Json]
) -> None:
    repository = world.tracked(priority="high")
    workspace = world.add(repository)
    repair(world, repository)
    world.remove(repository, workspace)
    repair(world, repository)
    assert world.row(repository) == Row("medium", False, 0)


@repairers
def test_flags_that_somebody_took_back_are_set_again_and_are_no_overrides(
    world: World, repair: Callable[[World, UUID], Json]
) -> None:
    """What the requirement calls its rollback, under a running daemon."""
    held, left = world.tracked(), world.tracked()
    world.add(held)
    workspace = world.add(left)
    world.sync(held, left)
    world.remove(left, workspace)
    world.execute("update tracked_repositories set is_workspace_repo = false")
    for repository in (held, left):
        repair(world, repository)
    assert world.row(held) == Row("high", True, 1)
    assert world.row(left) == Row("medium", False, 0)


def test_does_not_take_the_priority_of_a_workspace_for_an_override(world: World) -> None:
    repository = world.tracked()
    workspace = world.add(repository)
    world.sync(repository)
    world.remove(repository, workspace)
    world.sync(repository)
    assert world.row(repository) == Row("medium", False, 0)


def test_a_row_without_repository_counts_nothing_until_it_is_filled_in(world: World) -> None:
    tracked = world.track(None, priority="low", is_workspace_repo=True, workspace_count=3)
    repository = world.repository()
    world.add(repository)

    assert world.sweep()["changed"] == 1
    assert world.execute(
        "select priority::text, is_workspace_repo, workspace_count from tracked_repositories where id = %s",
        tracked,
    ).fetchone() == ("medium", False, 0)

    world.execute("update tracked_repositories set repository_id = %s where id = %s", repository, tracked)
    world.sweep()
    assert world.row(repository) == Row("high", True, 1)


def test_a_row_tracked_after_its_membership_is_raised(world: World) -> None:
    repository = world.repository()
    world.add(repository)
    assert world.sync(repository) | {"applied_at": None, "database_seconds": 0} == {
        "examined": 0, "workspace_repos": 0, "tracked_only_repos": 0, "untracked": 1, "changed": 0,
        "changes": [], "locked": [], "refused": [], "all_refused": None, "applied_at": None,
        "database_seconds": 0,
    }  # fmt: skip
    world.track(repository)
    assert world.sync(repository)["untracked"] == 0
    assert world.row(repository) == Row("high", True, 1)


def test_counts_distinct_workspaces(world: World) -> None:
    """An application without the unique constraint may hold a repository twice in a workspace."""
    world.execute(
        """alter table workspace_repositories
           drop constraint workspace_repositories_workspace_id_repository_id_key"""
    )
    repository = world.tracked()
    workspace = world.add(repository)
    world.add(repository, workspace)
    world.sync(repository)
    assert world.row(repository) == Row("high", True, 1)
    answer = world.sweep()
    assert (answer["examined"], answer["changed"]) == (0, 0), "a sweep would find it again forever"
    world.add(repository)
    world.sweep()
    assert world.row(repository) == Row("high", True, 2)


# Input.


@pytest.mark.parametrize(
    "ids", [None, [], [None], [uuid.UUID(int=0)], [None, uuid.UUID(int=1), uuid.UUID(int=1)]]
)
def test_nothing_to_do_is_done_without_fuss(world: World, ids: list[UUID | None] | None) -> None:
    world.tracked()
    answer = world.call("sync_workspace_priorities", ids)
    assert (answer["examined"], answer["untracked"], answer["changed"], answer["changes"]) == (0, 0, 0, [])
    assert world.call("get_repository_priorities", ids) == {}


def test_nulls_duplicates_and_unknown_ids_change_nothing_for_the_others(world: World) -> None:
    repository, untracked = world.tracked(), world.repository()
    world.add(repository)
    world.add(untracked)
    answer = world.sync(None, repository, repository, uuid.uuid4(), untracked, untracked, None)
    assert (answer["examined"], answer["untracked"], answer["changed"]) == (1, 1, 1)
    assert world.row(repository) == Row("high", True, 1)


def test_takes_ten_thousand_ids_in_one_call(world: World) -> None:
    world.execute(
        """with r as (insert into repositories select from generate_series(1, 10000) returning id),
                w as (insert into workspaces default values returning id),
                t as (insert into tracked_repositories (repository_id) select id from r)
           insert into workspace_repositories (workspace_id, repository_id) select w.id, r.id from w, r"""
    )
    ids = [row[0] for row in world.execute("select id from repositories")]

    answer = world.sync(*ids)
    assert (answer["examined"], answer["changed"], answer["workspace_repos"]) == (10_000, 10_000, 10_000)
    assert len(answer["changes"]) == 10_000
    assert world.sync(*ids)["changed"] == 0
    assert len(world.call("get_repository_priorities", ids)) == 10_000


@pytest.mark.parametrize("call", ["sync_workspace_priorities", "sweep_workspace_priorities"])
@pytest.mark.parametrize("trigger", ["cron", "", None])
def test_refuses_a_trigger_outside_the_vocabulary(world: World, call: str, trigger: str | None) -> None:
    args: list[object] = [[]] if call.startswith("sync") else []
    with pytest.raises(
        psycopg.Error, match=r"p_trigger is .* must be one of: event, sweep, resync"
    ) as refused:
        world.call(call, *args, p_trigger=trigger)
    assert refused.value.sqlstate == "22023"


@pytest.mark.parametrize("limit", [0, -1, 100_001, None])
def test_refuses_a_limit_out_of_range(world: World, limit: int | None) -> None:
    for call in (
        lambda: world.sweep(p_limit=limit),
        lambda: world.call("resync_workspace_priorities_page", None, limit),
        lambda: world.call("get_workspace_repository_ids", None, limit),
    ):
        with pytest.raises(psycopg.Error, match=r"p_limit is .* must be between 1 and 100000") as refused:
            call()
        assert refused.value.sqlstate == "22023"


def test_the_words_for_what_caused_a_change_are_the_same_in_sql_and_python(world: World) -> None:
    assert world.call("priorityd.triggers") == list(TRIGGERS)
    for word in TRIGGERS:
        repository = world.tracked()
        world.add(repository)
        world.sync(repository, p_trigger=word)
        assert world.audit(repository)[0][-1] == word


# Dry run.


@pytest.mark.parametrize("limit", [3, 1000])
def test_a_dry_run_changes_nothing_and_predicts_the_real_run(world: World, limit: int) -> None:
    workspaces = [world.workspace() for _ in range(3)]
    repositories = []
    for number, (priority, flag, manual) in enumerate(
        product(("high", "low", None), (False, True, None), ("high", "low", None))
    ):
        repository = world.tracked(priority=priority, is_workspace_repo=flag, manual_priority=manual)
        repositories.append(repository)
        for workspace in workspaces[: number % 4]:
            world.add(repository, workspace)
    world.add(world.repository())

    def run(kind: str, *, dry: bool) -> Json:
        if kind == "sync":
            answer = world.sync(*repositories, p_dry_run=dry)
        elif kind == "sweep":
            answer = world.sweep(p_limit=limit, p_dry_run=dry)
        else:
            answer = world.call("resync_workspace_priorities_page", None, limit, p_dry_run=dry)
        return answer | dict.fromkeys(("applied_at", "database_seconds", "writing_seconds"))

    for kind in ("sweep", "resync", "sync"):
        before = world.everything()
        predicted = run(kind, dry=True)
        assert world.everything() == before
        assert run(kind, dry=False) == predicted
        assert (world.everything() != before) == (predicted["changed"] > 0)


def test_refuses_to_write_from_an_old_snapshot(world: World, database: Database) -> None:
    repository = world.tracked()
    other = database.connect(autocommit=False)
    other.execute("set transaction isolation level repeatable read")
    with pytest.raises(psycopg.Error, match="READ COMMITTED") as refused:
        other.execute("select sync_workspace_priorities(array[%s])", [repository])
    assert refused.value.sqlstate == "25000"
