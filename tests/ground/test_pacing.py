"""How long sweeps and looks rest, by what they cost."""

from __future__ import annotations

import pytest

from priorityd.core.pacing import QUIET_LOOKS, LookPace, SweepPace


def test_a_large_database_is_swept_less_often() -> None:
    pace = SweepPace(interval_seconds=10, debounce_seconds=0.2)
    assert pace.next_periodic_at(5.0) == 5.0
    for _ in range(3):
        pace.finished(0.0, 0.02)
    assert (pace.next_periodic_at(1.0), pace.next_requested_at(1.0)) == (10.0, 0.2)
    for _ in range(3):
        pace.finished(0.0, 0.5)
    assert [pace.next_periodic_at(1.0), pace.next_requested_at(1.0), pace.next_urgent_at(1.0)] == [
        50,
        2.5,
        0.5,
    ]


def test_sweeps_that_waited_for_locks_make_the_next_ones_no_rarer() -> None:
    pace = SweepPace(interval_seconds=10, debounce_seconds=0.2)
    for started_at in (0.0, 10.0):
        pace.finished(started_at, 0.01)
    for started_at in (20.0, 30.0, 40.0):
        pace.finished(started_at, None)
    assert pace.next_periodic_at(41.0) == 50.0
    assert pace.next_requested_at(41.0) == 40.2


def test_one_costly_sweep_among_cheap_ones_changes_nothing() -> None:
    pace = SweepPace(interval_seconds=10, debounce_seconds=0.2)
    for seconds in (3.0, 0.02, 5.0):
        pace.finished(0.0, seconds)
        assert (pace.next_periodic_at(1.0), pace.next_requested_at(1.0)) == (10.0, 0.2)


def test_looks_rest_longer_after_some_that_found_nothing_until_one_finds_something() -> None:
    pace = LookPace(5, 0.01, 60)
    rests = [pace.rest_after(0.01, quiet=True) for _ in range(QUIET_LOOKS + 1)]
    assert rests == [5] * (QUIET_LOOKS - 1) + [60, 60]
    assert pace.shortest_rest() == 5, "after news there is no need to wait for the long rest"
    assert pace.rest_after(0.01, quiet=False) == 5
    assert pace.rest_after(0.01, quiet=True) == 5


def test_looks_rest_longer_where_they_are_dear_and_one_slow_look_changes_nothing() -> None:
    pace = LookPace(5, 0.01, 60)
    assert pace.rest_after(3, quiet=False) == 5, "the first is slow because nothing is cached"
    assert pace.rest_after(0.01, quiet=False) == 5
    assert pace.rest_after(2, quiet=False) == 5
    assert pace.rest_after(0.2, quiet=False) == 5
    assert pace.rest_after(0.3, quiet=False) == pytest.approx(20)
