"""What happened in the last hour, minute by minute, in memory that does not grow.

For the status page; Prometheus keeps what must last. A latency is kept as the number of its bucket, each
bucket `_RATIO` wider than the one before: so a minute holds a few dozen numbers however much happens in it,
and a quantile is accurate to within `_RATIO`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil, exp, log
from typing import Final

from priorityd.core.priorities import Priority
from priorityd.core.vocabulary import JobStatus

MINUTES: Final = 60
_KEPT: Final = timedelta(minutes=MINUTES)
_RATIO: Final = 1.05
_LEAST_SECONDS: Final = 0.001
_MOST_SECONDS: Final = 86_400.0
_SET_BACK: Final = timedelta(minutes=5)


class Latencies:
    """Durations, for quantiles."""

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Add one."""
        self._classes[_class_of(seconds)] += 1

    def merge(self, other: Latencies) -> None:
        """Add all of another's."""
        self._classes.update(other._classes)

    def quantile(self, share: float) -> float | None:
        """The quantile `share` (0 to 1), in seconds; None without any."""
        wanted = max(1, ceil(share * self._classes.total()))
        for number in sorted(self._classes):
            wanted -= self._classes[number]
            if wanted <= 0:
                return _LEAST_SECONDS * exp(number * log(_RATIO))
        return None

    def __len__(self) -> int:
        return self._classes.total()


def _class_of(seconds: float) -> int:
    within = min(max(seconds, _LEAST_SECONDS), _MOST_SECONDS)
    return round(log(within / _LEAST_SECONDS) / log(_RATIO))


@dataclass(slots=True)
class Minute:
    """What happened in the minute from `at` (UTC). `changes` counts rows by their new priority.

    `latencies` has none for a priority without any.
    """

    at: datetime
    changes: Counter[Priority] = field(default_factory=Counter)
    latencies: dict[Priority, Latencies] = field(default_factory=dict)
    jobs: Counter[tuple[Priority, JobStatus]] = field(default_factory=Counter)
    job_inversions: int = 0
    drift_repaired: int = 0


class History:
    """The last `MINUTES` minutes, including the current one."""

    def __init__(self) -> None:
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)

    def add_change(self, at: datetime, priority: Priority, latency_seconds: float | None) -> None:
        """A row was changed to this priority."""
        minute = self._minute(at)
        minute.changes[priority] += 1
        if latency_seconds is not None:
            minute.latencies.setdefault(priority, Latencies()).add(latency_seconds)

    def add_jobs(self, at: datetime, priority: Priority, status: JobStatus, jobs: int) -> None:
        """So many jobs have ended."""
        self._minute(at).jobs[priority, status] += jobs

    def add_drift(self, at: datetime, repositories: int) -> None:
        """A periodic sweep found so many wrong rows that no change had announced."""
        self._minute(at).drift_repaired += repositories

    def add_job_inversions(self, at: datetime, jobs: int) -> None:
        """So many jobs have overtaken another."""
        self._minute(at).job_inversions += jobs

    def eventful_minutes(self, now: datetime) -> list[Minute]:
        """Those of the last `MINUTES` minutes in which anything happened, the oldest first."""
        last = _minute_of(now)
        return [minute for minute in self._minutes if last - _KEPT < minute.at <= last]

    def minutes(self, now: datetime) -> list[Minute]:
        """One for each of the last `MINUTES` minutes, the oldest first; quiet ones are empty."""
        eventful = {minute.at: minute for minute in self.eventful_minutes(now)}
        last = _minute_of(now)
        starts = (last - timedelta(minutes=ago) for ago in range(MINUTES - 1, -1, -1))
        return [eventful.get(start) or Minute(start) for start in starts]

    def _minute(self, at: datetime) -> Minute:
        start = _minute_of(at)
        # The wall clock was set back. By little: add to the newest minute there is. By more: what was noted
        # at times that are yet to come would hide what happens until then.
        while self._minutes and self._minutes[-1].at > start + _SET_BACK:
            self._minutes.pop()
        if not self._minutes or self._minutes[-1].at < start:
            self._minutes.append(Minute(start))
        return self._minutes[-1]


def merged(latencies: Iterable[Latencies]) -> Latencies:
    """All of them as one."""
    result = Latencies()
    for each in latencies:
        result.merge(each)
    return result


def _minute_of(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(second=0, microsecond=0)
