"""The quota of changes, as Realtime counts it. Pure.

Changes are counted once for each binding that they go to, in buckets of 5 s of which the last twelve are
kept. When a bucket is full and the average of those there are reaches the quota, every change is dropped
until an average is below it: after a burst about a minute, in which channels stay joined and are told
nothing. A burst itself gets through, since what is looked at is the last average.

Source: `RateCounter` and `db_events_per_second_rate` of supabase/realtime v2.129.8.
"""

from __future__ import annotations

_BUCKET_SECONDS = 5.0
_MOST_BUCKETS = 12


class Quota:
    """Counts from `now` on; times are seconds of one clock that never jumps."""

    def __init__(self, now: float) -> None:
        self._buckets: list[int] = []
        self._count = 0
        self._full_at = now
        self._is_over = False

    def count(self, events: int) -> None:
        """So many were sent."""
        self._count += events

    def is_over(self, now: float, per_second: float) -> bool:
        """Whether changes are dropped now, with a quota of so many a second."""
        while self._full_at <= now:
            self._buckets = [self._count, *self._buckets][:_MOST_BUCKETS]
            average = sum(self._buckets) / len(self._buckets) / _BUCKET_SECONDS
            self._is_over = average >= per_second
            self._count = 0
            self._full_at += _BUCKET_SECONDS
        return self._is_over
