"""The documented queries run on the schema, and their figures are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.database import Database
from tests.support.world import World, session

QUERIES = Path(__file__).parents[2] / "deploy" / "queries"


@pytest.fixture
def world(database: Database) -> World:
    """Two workspace repositories and one outside; jobs of all kinds."""
    world = session(database)
    inside, outside = world.tracked(), world.tracked()
    world.add(inside)
    world.add(world.tracked())
    world.resync()
    world.pin(outside, "low")
    for repository, name in ((inside, "inside"), (outside, "outside")):
        world.execute("update repositories set owner = 'acme', name = %s where id = %s", name, repository)
    world.execute(
        """insert into background_jobs
               (repository_id, payload, status, created_at, started_at, completed_at, failed_at)
           values
               (%(inside)s, '{}', 'completed', now() - interval '60 s', now(), now() - interval '30 s', null),
               (%(inside)s, '{"priority": 100}', 'failed', now() - interval '60 s', now(), null, now()),
               (%(outside)s, '{"priority": 50}', 'completed', now() - interval '10 s', now(), now(), null),
               (%(outside)s, '{}', 'queued', now() - interval '90 s', null, null, null),
               (%(inside)s, '{"priority": 100}', 'queued', now() - interval '2 min', null, null, null)
        """.replace("%(inside)s", f"'{inside}'").replace("%(outside)s", f"'{outside}'")
    )
    return world


def rows(world: World, name: str) -> list[tuple[Any, ...]]:
    return world.connection.execute((QUERIES / f"{name}.sql").read_bytes()).fetchall()


def test_processing_time_by_priority(world: World) -> None:
    high, medium, low = rows(world, "processing_time_by_priority")
    assert (high[0], float(high[1]), high[3:6], float(high[6])) == ("high", 30, (3, 1, 1), 50)
    assert (medium[0], float(medium[1]), medium[3:6], float(medium[6])) == ("medium", 10, (1, 1, 0), 100)
    assert (low[0], low[1], low[3:6], low[6]) == ("low", None, (1, 0, 0), None)


def test_priority_distribution(world: World) -> None:
    assert [(flag, priority, count) for flag, priority, count, _ in rows(world, "priority_distribution")] == [
        (True, "high", 2),
        (False, "low", 1),
    ]


def test_inversions(world: World) -> None:
    assert rows(world, "inversions") == []
    world.execute("update tracked_repositories set priority = 'low' where is_workspace_repo")
    assert sorted(str(row[0]) for row in rows(world, "inversions")) == ["None", "acme/inside"]


def test_job_inversions(world: World) -> None:
    found = rows(world, "job_inversions")
    assert [(row[0], row[2], row[4], row[6], row[8]) for row in found] == [
        (1, "acme/outside", "medium", "acme/inside", "high")
    ]


def test_queue_by_priority(world: World) -> None:
    assert [row[:2] for row in rows(world, "queue_by_priority")] == [("high", 1), ("low", 1)]


def test_every_query_is_tried() -> None:
    tried = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {file.stem for file in QUERIES.glob("*.sql")} <= tried
