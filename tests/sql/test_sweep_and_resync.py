"""Which rows a sweep and the pages of a resync look at."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.world import World


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
        """insert into repositories select from generate_series(1, 8000);
           insert into tracked_repositories (repository_id, priority) select id, 'low' from repositories"""
    )
    (dry,) = world.resync(50_000, p_dry_run=True)
    assert dry["changed"] == 8_000
    pages = world.resync(50_000)
    assert sum(page["changed"] for page in pages) == sum(page["examined"] for page in pages) == 8_000
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
