"""Metrics of changes on their way to the rows, and of changed rows."""

from __future__ import annotations

from typing import Final

from priorityd.core.apply.work_queue import WorkQueue
from priorityd.core.priorities import PRIORITIES, TRIGGERS
from priorityd.daemon.clock import monotonic
from priorityd.daemon.metrics import NO_PRIORITY, MetricRegistry

DAEMON_TRIGGERS: Final = tuple(
    trigger for trigger in TRIGGERS if trigger not in ("pin", "migration", "rollback")
)
"""The triggers of what a daemon does."""
_LATENCY_BUCKETS: Final = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5, 10, 30, 60, 300, 3600)
_CALL_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCH_BUCKETS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 10_000)


class ApplyMetrics:
    """The work queue's, the worker's and the recorder's."""

    def __init__(self, made: MetricRegistry) -> None:
        self._made = made
        self.change_latency = made.histogram(
            "change_latency_seconds",
            "From the commit of a workspace change to its priority being applied, by the database's clock.",
            _LATENCY_BUCKETS,
            priority=PRIORITIES,
        )
        self.changes = made.counter(
            "changes",
            "Tracked rows changed by this daemon, by their priority before and after.",
            old=(*PRIORITIES, NO_PRIORITY),
            new=PRIORITIES,
            trigger=DAEMON_TRIGGERS,
        )
        self._pending = made.gauge("pending_repositories", "Repositories waiting to be synced.")
        self._oldest_pending = made.gauge("oldest_pending_seconds", "How long the oldest of them has waited.")
        self._parked = made.gauge("parked_repositories", "Repositories whose row can't be written.")
        self.apply_seconds = made.histogram(
            "apply_seconds", "Time of one call that applies a batch.", _CALL_BUCKETS
        )
        self.apply_batch_size = made.histogram(
            "apply_batch_size", "Repositories in such a batch.", _BATCH_BUCKETS
        )

    def watch(self, queue: WorkQueue) -> None:
        """Read the work queue before each scrape."""
        self._made.watch(self._pending, lambda: queue.pending)
        self._made.watch(self._oldest_pending, lambda: queue.oldest_pending_seconds(monotonic()))
        self._made.watch(self._parked, lambda: queue.parked_count)
