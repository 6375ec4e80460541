"""The least that is needed, two tables without names of anything: everything works, and shows ids."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from priorityd.daemon.sandbox.migrate import apply_migrations
from tests.support.database import schema_sql
from tests.support.transcripts import BLOCKS
from tests.support.world import Row, World, session

if TYPE_CHECKING:
    from uuid import UUID

    from tests.support.database import Database


@pytest.fixture
def least(empty_database: Database) -> World:
    world = session(empty_database)
    world.connection.execute(schema_sql("roles"))
    world.connection.execute(BLOCKS["application"].encode())
    apply_migrations(world.connection)
    return world


@pytest.fixture
def repository(least: World) -> UUID:
    repository = uuid4()
    least.track(repository)
    return repository


def test_a_membership_raises_the_priority_and_its_end_lowers_it(least: World, repository: UUID) -> None:
    workspace = least.add(repository, uuid4())
    (change,) = least.sync(repository)["changes"]
    assert (change["repository_id"], change["name"]) == (str(repository), None)
    assert least.row(repository) == Row("high", True, 1)

    least.remove(repository, workspace)
    assert least.sweep()["changed"] == 1
    assert least.row(repository) == Row("medium", False, 0)


def test_everything_that_shows_names_works_without(least: World, repository: UUID) -> None:
    least.add(repository, uuid4())
    assert least.resync()[0]["changed"] == 1
    least.pin(repository, "low")
    assert least.call("explain_repository_priority", repository)["tracked"]["priority"] == "high"
    assert least.call("workspace_priority_snapshot")["untracked"] == 0
    assert least.call("check_workspace_priorities")["publication"]["missing"] == []
    assert least.call("rollback_workspace_priorities")["changed"] == 1
    assert least.row(repository) == Row("low", False, 0, "low")
