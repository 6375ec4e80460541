"""The last hour in memory that does not grow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from sys import getsizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorityd.core.history import MINUTES, History, Latencies, merged

NOW = datetime(2025, 1, 3, 12, 30, 40, tzinfo=UTC)


def test_shows_every_minute_of_the_last_hour_the_empty_ones_too() -> None:
    history = History()
    history.add_change(NOW - timedelta(minutes=10), "high", 0.2)
    history.add_change(NOW, "medium", None)
    minutes = history.minutes(NOW)
    assert len(minutes) == MINUTES
    assert [minute.at for minute in minutes] == sorted(minute.at for minute in minutes)
    assert minutes[-1].at == NOW.replace(second=0)
    assert minutes[-1].changes == {"medium": 1}
    assert minutes[-11].changes == {"high": 1}
    assert sum(minute.changes.total() for minute in minutes) == 2


def test_what_is_older_than_an_hour_is_gone_and_memory_is_bounded() -> None:
    history = History()
    start = NOW - timedelta(days=1)
    for minute in range(24 * 60):
        for _ in range(5):
            history.add_change(start + timedelta(minutes=minute), "high", 0.1)
            history.add_jobs(start + timedelta(minutes=minute), "low", "failed", 2)
    minutes = history.minutes(NOW)
    assert sum(minute.changes["high"] for minute in minutes) == 5 * 59, "the newest minute has none yet"
    assert sum(minute.jobs["low", "failed"] for minute in minutes) == 10 * 59
    assert len(history._minutes) == MINUTES


def test_a_clock_that_is_put_back_loses_nothing() -> None:
    history = History()
    history.add_job_inversions(NOW, 1)
    history.add_job_inversions(NOW - timedelta(minutes=3), 1)
    assert sum(minute.job_inversions for minute in history.minutes(NOW)) == 2


def test_a_clock_that_was_hours_ahead_hides_nothing_that_happens_once_it_is_right() -> None:
    history = History()
    history.add_job_inversions(NOW + timedelta(hours=5), 1)
    history.add_job_inversions(NOW, 2)
    assert history.minutes(NOW)[-1].job_inversions == 2


@given(st.lists(st.floats(0.001, 80_000), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_those_of_the_sorted_list_to_within_a_few_percent(
    seconds: list[float], share: float
) -> None:
    latencies = merged([_of(seconds[::2]), _of(seconds[1::2])])
    exact = sorted(seconds)[max(1, -int(-share * len(seconds) // 1)) - 1]
    assert latencies.quantile(share) == pytest.approx(exact, rel=0.03)


def test_latencies_take_no_more_room_the_more_there_are() -> None:
    latencies = Latencies()
    for n in range(100_000):
        latencies.add(n / 1000)
    assert len(latencies) == 100_000
    assert getsizeof(latencies._classes) < 25_000
    assert Latencies().quantile(0.5) is None


def _of(seconds: list[float]) -> Latencies:
    latencies = Latencies()
    for each in seconds:
        latencies.add(each)
    return latencies
