"""The quota of changes: who exceeds it hears nothing for about a minute."""

from __future__ import annotations

from priorityd.daemon.sandbox.realtime.quota import Quota

PER_SECOND = 100.0


def seconds_over(quota: Quota, start: int, end: int) -> list[int]:
    """The seconds in which changes are dropped."""
    return [second for second in range(start, end) if quota.is_over(second, PER_SECOND)]


def test_a_steady_stream_below_it_is_never_cut() -> None:
    quota = Quota(0)
    for second in range(300):
        assert not quota.is_over(second, PER_SECOND)
        quota.count(99)


def test_a_burst_gets_through_and_is_followed_by_a_minute_of_silence() -> None:
    quota = Quota(0)
    assert seconds_over(quota, 0, 101) == []
    quota.count(6000)
    assert seconds_over(quota, 101, 300) == list(range(105, 165))


def test_after_a_start_there_is_less_to_average_over() -> None:
    quota = Quota(0)
    assert not quota.is_over(0, PER_SECOND)
    quota.count(1000)
    assert seconds_over(quota, 1, 300) == list(range(5, 10))


def test_it_depends_on_the_plan() -> None:
    quota = Quota(0)
    seconds_over(quota, 0, 101)
    quota.count(6000)
    assert not quota.is_over(105, 500.0)
