"""Metrics of the lease."""

from __future__ import annotations

from collections.abc import Callable

from priorityd.daemon.metrics import MetricRegistry


class LeaderMetrics:
    """The elector's."""

    def __init__(self, made: MetricRegistry) -> None:
        self._leader = made.gauge("leader", "1 if the timer work is this daemon's.")

    def watch(self, is_leader: Callable[[], bool]) -> None:
        """Ask in each scrape whether this daemon is the leader, in the thread that answers it.

        An event loop that is blocked, or has not turned yet after the process was stopped, has no say: the
        lease runs out meanwhile.
        """
        self._leader.set_function(is_leader)
