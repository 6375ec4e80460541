"""How often to sweep, so that sweeps cost the database little whatever its size."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

PERIODIC_SHARE: Final = 0.01
"""The largest share of the database's time for periodic sweeps."""
REQUESTED_SHARE: Final = 0.2
"""The largest share of the database's time for sweeps requested by changes that name no repository."""
QUIET_LOOKS: Final = 6
"""After so many polls in a row without news, none is expected for a while."""


@dataclass(slots=True)
class SweepPace:
    """Decides when a sweep may start, from what the last few cost the database.

    The cheapest of them counts: the first is slow because nothing is cached, and any may have waited for a
    lock, which the next need not. One that met a row which stayed locked waited for the whole time-out; it
    does not count at all, or rows locked for a minute would make sweeps rare for minutes. Times are seconds
    of one monotonic clock. `interval_seconds` is the period between sweeps on a small database,
    `debounce_seconds` the minimum between two requested ones.
    """

    interval_seconds: float
    debounce_seconds: float
    _last_started_at: float | None = None
    _costs: deque[float] = field(default_factory=lambda: deque(maxlen=3))

    def finished(self, started_at: float, database_seconds: float | None) -> None:
        """A sweep succeeded; its cost, None if it spent most of its time waiting for locks."""
        self._last_started_at = started_at
        if database_seconds is not None:
            self._costs.append(database_seconds)

    def skipped(self, now: float) -> None:
        """The periodic sweep was due and is left to another daemon."""
        self._last_started_at = now

    def hurry(self) -> None:
        """The next sweep is due at once."""
        self._last_started_at = None

    def next_periodic_at(self, now: float) -> float:
        """When the next periodic sweep is due."""
        return self._next(now, self.interval_seconds, PERIODIC_SHARE)

    def next_requested_at(self, now: float) -> float:
        """When a requested sweep may start; the first after a quiet time at once."""
        return self._next(now, self.debounce_seconds, REQUESTED_SHARE)

    def next_urgent_at(self, now: float) -> float:
        """When a sweep after missed changes may start: that is rare, so no share limits it."""
        return self._next(now, self.debounce_seconds, 1.0)

    def _next(self, now: float, least_seconds: float, share: float) -> float:
        if self._last_started_at is None:
            return now
        typical = min(self._costs) if len(self._costs) > 1 else 0.0
        return self._last_started_at + max(least_seconds, typical / share)


@dataclass(slots=True)
class LookPace:
    """Decides how long to rest between two polls, so that they take at most `share` of the time.

    As with sweeps the lowest of the last few costs counts, and the first not at all. After `QUIET_LOOKS` in a
    row that found nothing new the rest is `quiet_seconds`, until a poll finds something. Times are seconds.
    """

    interval_seconds: float
    share: float
    quiet_seconds: float
    _costs: deque[float] = field(default_factory=lambda: deque(maxlen=3))
    _quiet_looks: int = 0

    def rest_after(self, cost_seconds: float, *, quiet: bool) -> float:
        """How long to rest after a poll that cost so much; `quiet` if it found nothing new."""
        self._costs.append(cost_seconds)
        self._quiet_looks = self._quiet_looks + 1 if quiet else 0
        return max(self.quiet_seconds if self._quiet_looks >= QUIET_LOOKS else 0.0, self.shortest_rest())

    def shortest_rest(self) -> float:
        """How long to rest at least."""
        typical = min(self._costs) if len(self._costs) > 1 else 0.0
        return max(self.interval_seconds, typical / self.share)
