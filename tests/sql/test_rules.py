"""What each row becomes: the rules, and what the calls that apply them answer and record."""

from __future__ import annotations

import uuid
from itertools import product
from typing import TYPE_CHECKING

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
    assert world.sync(repository) | {"applied_at": None} == {
        "examined": 0, "workspace_repos": 0, "tracked_only_repos": 0, "untracked": 1, "changed": 0,
        "changes": [], "locked": [], "refused": [], "all_refused": None, "applied_at": None,
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
    assert (answer["examined"], answer["changed"]) == (0, 0), "a sweep would find it again for ever"
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
    args = [[]] if call.startswith("sync") else []
    with pytest.raises(Exception, match=r"p_trigger is .* must be one of: event, sweep, resync") as refused:
        world.call(call, *args, p_trigger=trigger)
    assert refused.value.sqlstate == "22023"


@pytest.mark.parametrize("limit", [0, -1, 100_001, None])
def test_refuses_a_limit_out_of_range(world: World, limit: int | None) -> None:
    for call in (
        lambda: world.sweep(p_limit=limit),
        lambda: world.call("resync_workspace_priorities_page", None, limit),
        lambda: world.call("get_workspace_repository_ids", None, limit),
    ):
        with pytest.raises(Exception, match=r"p_limit is .* must be between 1 and 100000") as refused:
            call()
        assert refused.value.sqlstate == "22023"


def test_the_words_for_what_caused_a_change_are_the_same_in_sql_and_python(world: World) -> None:
    assert world.call("priorityd.triggers") == list(TRIGGERS)
    for word in TRIGGERS:
        repository = world.tracked()
        world.add(repository)
        world.sync(repository, p_trigger=word)
        assert world.audit(repository)[0][-1] == word


# Writes and the trail.


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
        return answer | {"applied_at": None, "database_seconds": None}

    for kind in ("sweep", "resync", "sync"):
        before = world.everything()
        predicted = run(kind, dry=True)
        assert world.everything() == before
        assert run(kind, dry=False) == predicted
        assert (world.everything() != before) == (predicted["changed"] > 0)


# Sweep and resync.


def test_the_sweep_takes_no_more_than_its_limit_and_says_so(world: World) -> None:
    workspace = world.workspace()
    for _ in range(5):
        world.add(world.tracked(), workspace)
    answers = [world.sweep(p_limit=2) for _ in range(4)]
    assert [answer["changed"] for answer in answers] == [2, 2, 1, 0]
    assert [answer["more"] for answer in answers] == [True, True, False, False]


def test_the_resync_pages_through_every_tracked_row_once(world: World) -> None:
    for number in range(7):
        repository = world.tracked()
        if number % 2:
            world.add(repository)
    world.track(None)
    world.add(world.repository())
    pages = world.resync(3)
    assert [page["examined"] for page in pages] == [3, 3, 2]
    assert sum(page["workspace_repos"] for page in pages) == 3
    assert sum(page["tracked_only_repos"] for page in pages) == 5
    assert sum(page["changed"] for page in pages) == 3
    assert sum(page["untracked"] for page in pages) == 1


def test_the_resync_pages_through_rows_without_a_repository(world: World) -> None:
    for _ in range(25):
        world.track(None, priority="low")
    for _ in range(5):
        world.add(world.tracked())
    for dry in (True, False):
        pages = world.resync(10, p_dry_run=dry)
        assert [page["changed"] for page in pages] == [10, 10, 10]
        assert [page["examined"] for page in pages] == [10, 10, 10]
    assert [page["changed"] for page in world.resync(10)] == [0, 0, 0]


@pytest.mark.parametrize("wrong", [0, 2_000])
def test_rows_without_a_repository_are_counted_whether_many_are_wrong_or_few(
    world: World, wrong: int
) -> None:
    world.execute(
        """insert into tracked_repositories (priority)
           select (case when n <= %s then 'low' else 'medium' end)::repository_priority
           from generate_series(1, 3000) n""",
        wrong,
    )
    held = world.tracked()
    world.add(held)
    pages = world.resync(1_000)
    assert [page["examined"] for page in pages] == [1_000, 1_000, 1_000, 1]
    assert sum(page["changed"] for page in pages) == wrong + 1
    assert sum(page["tracked_only_repos"] for page in pages) == 3_000


def test_a_repository_that_has_the_id_of_another_row_is_examined_as_well(world: World) -> None:
    """Keys of both kinds are one order: an application may use the same ids for both."""
    nameless = [world.track(None, priority="low") for _ in range(3)]
    for repository in nameless:
        world.execute("insert into repositories (id) values (%s)", repository)
        world.track(repository, priority="low")
    pages = world.resync(1)
    assert [page["changed"] for page in pages] == [2, 2, 2]


def test_the_resync_examines_the_smallest_and_the_greatest_uuid(world: World) -> None:
    for number in (0, 1, 2**128 - 1):
        world.execute("insert into repositories (id) values (%s)", uuid.UUID(int=number))
        world.track(uuid.UUID(int=number), priority="low")
    pages = world.resync(1)
    assert [page["changed"] for page in pages] == [1, 1, 1]


def test_the_resync_shortens_a_page_with_many_wrong_rows(world: World) -> None:
    """So that no transaction holds locks on many rows for long; a dry run holds none."""
    world.execute(
        """insert into repositories select from generate_series(1, 20000);
           insert into tracked_repositories (repository_id, priority) select id, 'low' from repositories"""
    )
    (dry,) = world.resync(50_000, p_dry_run=True)
    assert dry["changed"] == 20_000
    pages = world.resync(50_000)
    assert sum(page["changed"] for page in pages) == sum(page["examined"] for page in pages) == 20_000
    assert max(page["changed"] for page in pages) <= 6_250


def test_the_resync_gets_past_more_rows_of_one_repository_than_a_page_holds(world: World) -> None:
    world.execute("alter table tracked_repositories drop constraint tracked_repositories_repository_id_key")
    for repository in (world.repository(), world.repository()):
        world.add(repository)
        for _ in range(3):
            world.track(repository)
    pages = world.resync(2)
    assert [page["changed"] for page in pages] == [3, 3]


@pytest.mark.parametrize("pages_of", [1, 4, 1000])
def test_resync_and_sweep_count_untracked_repositories(world: World, pages_of: int) -> None:
    workspace = world.workspace()
    for _ in range(3):
        world.add(world.repository(), workspace)
    world.add(world.tracked(), workspace)
    world.tracked()
    assert world.sweep()["untracked"] == 3
    assert sum(page["untracked"] for page in world.resync(pages_of)) == 3
    assert world.call("workspace_priority_snapshot")["untracked"] == 3


def test_refuses_to_write_from_an_old_snapshot(world: World, database: Database) -> None:
    repository = world.tracked()
    other = database.connect(autocommit=False)
    other.execute("set transaction isolation level repeatable read")
    with pytest.raises(Exception, match="READ COMMITTED") as refused:
        other.execute("select sync_workspace_priorities(array[%s])", [repository])
    assert refused.value.sqlstate == "25000"
