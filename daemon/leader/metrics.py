"""Metrics of the lease."""

from __future__ import annotations

from collections.abc import Callable

from priorityd.daemon.metrics import MetricRegistry


class LeaderMetrics:
    """The elector's metrics."""

    def __init__(self, made: MetricRegistry) -> None:
        self._made = made
        self._leader = made.gauge("leader", "1 if this daemon does the timer work.")

    def watch(self, is_leader: Callable[[], bool]) -> None:
        """Read this before each scrape."""
        self._made.watch(self._leader, is_leader)
