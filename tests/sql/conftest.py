"""Shared by the SQL tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database


@pytest.fixture
def world(database: Database) -> World:
    """A session on a fresh database with the migrations applied."""
    return session(database)
