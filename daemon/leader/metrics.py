"""Metrics of the lease."""

from __future__ import annotations

from collections.abc import Callable

from priorityd.daemon.metrics import MetricRegistry


class LeaderMetrics:
    """The elector's."""

    def __init__(self, made: MetricRegistry) -> None:
        self._made = made
        self._leader = made.gauge("leader", "1 if the timer work is this daemon's.")

    def watch(self, is_leader: Callable[[], bool]) -> None:
        """Read before each scrape whether this daemon is the leader."""
        self._made.watch(self._leader, is_leader)
