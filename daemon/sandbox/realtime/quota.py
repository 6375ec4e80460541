"""The quota of changes, as Realtime counts it. Pure.

A change is counted once for each binding that it is sent to, in buckets of 5 s, of which the last twelve are
kept. If the average of the buckets reaches the quota at the end of a bucket, every change is dropped until an
average is below the quota. After a burst this takes about a minute, during which channels stay joined and get
no message. The burst itself gets through, because only the last average counts.

Source: `RateCounter` and `db_events_per_second_rate` of supabase/realtime v2.129.8.
"""

from __future__ import annotations

_BUCKET_SECONDS = 5.0
_MOST_BUCKETS = 12


class Quota:
    """Counts from `now` on; times are seconds of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self._buckets: list[int] = []
        self._count = 0
        self._full_at = now
        self._is_over = False

    def count(self, events: int) -> None:
        """Add changes that were sent."""
        self._count += events

    def is_over(self, now: float, per_second: float) -> bool:
        """Whether changes are dropped now, with a quota of `per_second`."""
        while self._full_at <= now:
            self._buckets = [self._count, *self._buckets][:_MOST_BUCKETS]
            average = sum(self._buckets) / len(self._buckets) / _BUCKET_SECONDS
            self._is_over = average >= per_second
            self._count = 0
            self._full_at += _BUCKET_SECONDS
        return self._is_over
