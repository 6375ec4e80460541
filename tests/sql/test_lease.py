"""The lease on timer work: one daemon at a time, by the database's clock."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.support.database import Database
from tests.support.world import Background, World, session


def hold(world: World, daemon: UUID, seconds: float = 60) -> dict[str, Any]:
    return world.value("select hold_workspace_priority_lease(%s, %s)", daemon, seconds)


def test_the_first_has_it_and_the_others_are_told_for_how_long(world: World) -> None:
    first, second = uuid4(), uuid4()
    assert hold(world, first)["held"] is True
    answer = hold(world, second)
    assert answer["held"] is False
    assert 50 < answer["expires_in_seconds"] <= 60
    assert hold(world, first, 90)["expires_in_seconds"] > 80, "who has it may prolong it"


def test_an_expired_one_goes_to_whoever_asks(world: World) -> None:
    first, second = uuid4(), uuid4()
    hold(world, first)
    world.execute("update priorityd.leases set expires_at = clock_timestamp()")
    assert hold(world, second)["held"] is True
    assert hold(world, first)["held"] is False


def test_one_that_would_last_longer_than_any_may_is_nobody_s(world: World) -> None:
    """It was given while the database's clock was wrong, and would be respected until that time has come."""
    first, second = uuid4(), uuid4()
    assert hold(world, first, 3600)["held"] is True
    assert hold(world, second)["held"] is False
    world.execute("update priorityd.leases set expires_at = clock_timestamp() + interval '1 day'")
    assert hold(world, second) | {"expires_in_seconds": 0} == {"held": True, "expires_in_seconds": 0}
    assert hold(world, first)["held"] is False


def test_only_its_holder_can_give_it_up(world: World) -> None:
    first, second = uuid4(), uuid4()
    hold(world, first)
    assert world.value("select release_workspace_priority_lease(%s)", second) == {"released": False}
    assert hold(world, second)["held"] is False
    assert world.value("select release_workspace_priority_lease(%s)", first) == {"released": True}
    assert hold(world, second)["held"] is True


def test_of_two_who_ask_at_once_one_gets_it(database: Database, world: World) -> None:
    first, second = uuid4(), uuid4()
    hold(world, first)
    # Else the test would have to be faster than a second.
    world.execute("alter function hold_workspace_priority_lease set lock_timeout = '60s'")
    world.execute("update priorityd.leases set expires_at = clock_timestamp()")
    one, other = session(database, autocommit=False), session(database)
    assert hold(one, first)["held"] is True
    waiting = Background(lambda: hold(other, second))
    world.wait_until_blocked(other.pid)
    one.execute("commit")
    assert waiting.result()["held"] is False


@pytest.mark.parametrize(
    ("daemon", "seconds"),
    [
        ("null", "10"),
        ("gen_random_uuid()", "null"),
        ("gen_random_uuid()", "0"),
        ("gen_random_uuid()", "3601"),
        ("gen_random_uuid()", "'NaN'"),
    ],
)
def test_nonsense_is_refused_with_a_reason(world: World, daemon: str, seconds: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="must be"):
        world.execute(f"select hold_workspace_priority_lease({daemon}, {seconds})")
