"""Metrics of the lease."""

from __future__ import annotations

from collections.abc import Callable

from priorityd.daemon.metrics import MetricRegistry


class LeaderMetrics:
    """The elector's metrics."""

    def __init__(self, made: MetricRegistry) -> None:
        self._leader = made.gauge("leader", "1 if this daemon does the timer work.")

    def watch(self, is_leader: Callable[[], bool]) -> None:
        """Ask at each scrape whether this daemon is the leader, in the thread that answers the scrape.

        An event loop that is blocked, or has not turned yet after the process was stopped, can't update the
        gauge, but the lease expires in the meantime.
        """
        self._leader.set_function(is_leader)
