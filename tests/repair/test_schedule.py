"""When a resync is due by the wall clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from priorityd.core.repair.schedule import Schedule

NOON = datetime(2025, 1, 3, 12, 30, tzinfo=UTC)
EVERY_SIX_HOURS = "0 */6 * * *"


def test_it_is_due_at_its_time_and_then_not_before_the_next() -> None:
    schedule = Schedule(EVERY_SIX_HOURS, NOON)
    assert not schedule.is_due(NOON)
    evening = NOON + timedelta(hours=6)
    assert schedule.is_due(evening)
    schedule.go_on(evening)
    assert not schedule.is_due(evening)
    assert schedule.next_at == datetime(2025, 1, 4, tzinfo=UTC)


def test_a_clock_that_was_years_ahead_at_the_start_postpones_nothing() -> None:
    schedule = Schedule(EVERY_SIX_HOURS, NOON.replace(year=2031))
    assert not schedule.is_due(NOON)
    assert schedule.next_at == datetime(2025, 1, 3, 18, tzinfo=UTC)


def test_a_clock_that_was_years_behind_makes_it_due_once() -> None:
    schedule = Schedule(EVERY_SIX_HOURS, NOON.replace(year=2020))
    assert schedule.is_due(NOON)
    schedule.go_on(NOON)
    assert not schedule.is_due(NOON)
