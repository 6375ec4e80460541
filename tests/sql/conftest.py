"""Shared by the SQL tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.job_table import Jobs
from tests.support.outbox_calls import opened
from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database


@pytest.fixture
def world(database: Database) -> World:
    """A session on a fresh database with the migrations applied."""
    return session(database)


@pytest.fixture
def bare(empty_database: Database) -> World:
    """A session on a database with nothing in it."""
    return session(empty_database)


@pytest.fixture
def jobs(world: World) -> Jobs:
    """The application's job table."""
    return Jobs(world)


@pytest.fixture
def outbox(world: World) -> World:
    """A database that a dispatcher has begun with."""
    opened(world)
    return world
