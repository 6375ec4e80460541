"""What holds although the application has no unique constraint: of pairs, or of tracked rows of a repository.

Rows that repeat count once, all rows of a repository become right, and each repository has one answer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest

from tests.support.world import Row, World, session

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.database import Database
    from tests.support.world import Json

repairers = pytest.mark.parametrize(
    "repair",
    [
        pytest.param(lambda world, *repositories: world.sync(*repositories), id="sync"),
        pytest.param(lambda world, *_: world.sweep(), id="sweep"),
        pytest.param(lambda world, *_: world.resync()[0], id="resync"),
    ],
)


def allow_repeated_pairs(world: World) -> None:
    world.execute(
        """alter table workspace_repositories
           drop constraint workspace_repositories_workspace_id_repository_id_key,
           alter column workspace_id drop not null, alter column repository_id drop not null"""
    )


def allow_repeated_rows(world: World) -> None:
    world.execute("alter table tracked_repositories drop constraint tracked_repositories_repository_id_key")


def rows(world: World, repository: UUID) -> list[Row]:
    found = world.execute(
        """select priority::text, is_workspace_repo, workspace_count, manual_priority::text
           from tracked_repositories where repository_id = %s order by id""",
        repository,
    )
    return [Row(*row) for row in found]


# Tracked rows.


@repairers
def test_the_second_row_of_a_repository_becomes_right_beside_its_twin(
    world: World, repair: Callable[..., Json]
) -> None:
    allow_repeated_rows(world)
    repository = world.tracked()
    workspace = world.add(repository)
    world.sync(repository)
    world.track(repository)
    assert repair(world, repository)["changed"] == 1
    assert rows(world, repository) == [Row("high", True, 1)] * 2
    assert repair(world, repository)["changed"] == 0
    world.remove(repository, workspace)
    assert repair(world, repository)["changed"] == 2
    assert rows(world, repository) == [Row("medium", False, 0)] * 2
    assert len(world.audit(repository)) == 4


@pytest.mark.parametrize(
    "index",
    ["(repository_id) where tracking_enabled", "(repository_id, id)", "((repository_id::text))"],
)
def test_an_index_that_does_not_tell_is_not_relied_on(world: World, index: str) -> None:
    allow_repeated_rows(world)
    world.execute(f"create unique index on tracked_repositories {index}")
    assert not world.value("select priorityd.is_unique('tracked_repositories', '{repository_id}')")
    world.execute("create unique index on tracked_repositories (repository_id) include (id)")
    assert world.value("select priorityd.is_unique('tracked_repositories', '{repository_id}')")


def test_a_constraint_that_is_checked_later_is_not_relied_on(world: World) -> None:
    allow_repeated_rows(world)
    world.execute("alter table tracked_repositories add unique (repository_id) deferrable")
    assert not world.value("select priorityd.is_unique('tracked_repositories', '{repository_id}')")


def test_pins_every_row_of_a_repository(world: World) -> None:
    allow_repeated_rows(world)
    repository = world.tracked()
    world.track(repository, priority="high")
    assert world.pin(repository, "low")["changed"] == 2
    assert rows(world, repository) == [Row("low", False, 0, "low")] * 2
    world.pin(repository, None)
    assert rows(world, repository) == [Row("medium", False, 0)] * 2


def test_pins_no_row_of_a_repository_while_one_of_them_is_held(database: Database) -> None:
    world, holder = session(database), session(database, autocommit=False)
    allow_repeated_rows(world)
    repository = world.tracked()
    held = world.track(repository)
    holder.execute("select from tracked_repositories where id = %s for update", held)
    with pytest.raises(psycopg.Error, match="is being changed by another transaction"):
        world.pin(repository, "low")
    assert rows(world, repository) == [Row("medium", False, 0)] * 2


def test_each_repository_has_one_answer_the_highest(world: World) -> None:
    allow_repeated_rows(world)
    outside = world.tracked(priority="low", manual_priority="low")
    world.track(outside, priority="high", manual_priority="high")
    world.track(outside, priority=None)
    inside = world.tracked(priority="high")
    world.track(inside, priority="medium", is_workspace_repo=True, workspace_count=1)
    assert world.call("get_repository_priorities", [outside, inside]) == {
        str(outside): {"priority": "high", "is_workspace_repo": False, "workspace_count": 0},
        str(inside): {"priority": "medium", "is_workspace_repo": True, "workspace_count": 1},
    }


def test_the_events_of_jobs_have_that_answer_too(world: World) -> None:
    allow_repeated_rows(world)
    repository = world.repository()
    world.track(repository, priority="low", id=UUID(int=1))
    world.track(repository, priority="high", id=UUID(int=2))
    jobs = json.dumps([{"repository_id": str(repository)}])
    (event,) = world.call("build_repository_job_events", "reviews", jobs)["events"]
    assert (event["data"]["priority"], event["data"]["metadata"]["originalPriority"]) == (100, "high")


def test_explains_every_row_of_a_repository(world: World) -> None:
    allow_repeated_rows(world)
    repository = world.tracked(priority="low", manual_priority="low")
    world.track(repository, priority="medium", manual_priority="high")
    explained = world.call("explain_repository_priority", repository)
    found = [explained["tracked"], *explained["other_rows"]]
    assert [(row["priority"], row["expected_priority"], row["correct"]) for row in found] == [
        ("medium", "high", False),
        ("low", "low", True),
    ]
    assert (explained["expected"]["priority"], explained["correct"]) == ("high", False)


# Memberships.


@repairers
def test_one_workspace_twice_counts_once_and_two_that_become_one_are_seen(
    world: World, repair: Callable[..., Json]
) -> None:
    allow_repeated_pairs(world)
    repository = world.tracked()
    first, second = world.add(repository), world.add(repository)
    repair(world, repository)
    assert rows(world, repository) == [Row("high", True, 2)]
    world.execute(
        "update workspace_repositories set workspace_id = %s where workspace_id = %s", first, second
    )
    assert repair(world, repository)["changed"] == 1
    assert rows(world, repository) == [Row("high", True, 1)]
    world.execute(
        """update workspace_repositories set workspace_id = %s
           where ctid in (select max(ctid) from workspace_repositories)""",
        second,
    )
    assert repair(world, repository)["changed"] == 1
    assert rows(world, repository) == [Row("high", True, 2)]


@repairers
def test_a_unique_constraint_says_nothing_of_tables_that_inherit(
    world: World, repair: Callable[..., Json]
) -> None:
    world.execute("create table older_memberships () inherits (workspace_repositories)")
    repository = world.tracked()
    first, second = world.add(repository), world.workspace()
    world.execute(
        "insert into older_memberships (workspace_id, repository_id) values (%s, %s)", second, repository
    )
    repair(world, repository)
    assert rows(world, repository) == [Row("high", True, 2)]
    world.execute("update older_memberships set workspace_id = %s", first)
    assert repair(world, repository)["changed"] == 1
    assert rows(world, repository) == [Row("high", True, 1)]
    assert world.sweep()["examined"] == 0


@repairers
@pytest.mark.parametrize("column", ["workspace_id", "repository_id"])
@pytest.mark.parametrize("own", [False, True], ids=["as installed", "an operator's definition"])
def test_a_membership_that_lacks_an_id_counts_for_nothing(
    world: World, repair: Callable[..., Json], column: str, own: bool
) -> None:
    allow_repeated_pairs(world)
    if own:
        world.execute(
            """create or replace function priorityd.memberships()
               returns table (workspace_id uuid, repository_id uuid) language sql stable as $$
                   select m.workspace_id, m.repository_id from public.workspace_repositories m $$"""
        )
    repository, untracked = world.tracked(), world.repository()
    world.add(untracked, world.add(repository))
    repair(world, repository)
    world.execute(f"update workspace_repositories set {column} = null")
    answer = repair(world, repository, untracked)
    assert (answer["changed"], answer["untracked"]) == (1, 0)
    assert rows(world, repository) == [Row("medium", False, 0)]
    assert repair(world, repository)["changed"] == 0
    assert world.sweep()["examined"] == 0, "nothing is suspected forever"
    assert world.call("get_workspace_repository_ids")["repository_ids"] == []
    explained = world.call("explain_repository_priority", repository)
    assert (explained["workspaces"], explained["workspaces_in_all"]) == ([], 0)
