"""Records every full resync and sweep: counts it, and keeps it for the status page if it is worth showing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from priorityd.core.history import History
from priorityd.core.priorities import Trigger
from priorityd.daemon.clock import utc_now
from priorityd.daemon.repair.metrics import Kind, Outcome, RepairMetrics

RUNS_KEPT: Final = 10


@dataclass(frozen=True, slots=True)
class RecentRun:
    """A full resync, or a sweep worth showing; `examined` is None for a sweep."""

    kind: Kind
    trigger: Trigger
    outcome: Outcome
    ended_at: datetime
    seconds: float
    examined: int | None
    changed: int


class Runs:
    """Reports finished runs to the metrics and the history. `recent` has the newest first.

    `last_resync_failed` is about full resyncs, however many sweeps have failed since.
    """

    def __init__(self, metrics: RepairMetrics, history: History) -> None:
        self._metrics = metrics
        self._history = history
        self.recent: deque[RecentRun] = deque(maxlen=RUNS_KEPT)
        self.last_resync_failed = False

    def record(
        self,
        kind: Kind,
        trigger: Trigger,
        outcome: Outcome,
        seconds: float,
        *,
        changed: int = 0,
        examined: int | None = None,
    ) -> None:
        """Count a resync or sweep that ended.

        Most sweeps find nothing, or nothing unexpected, and would hide the others.
        """
        self._metrics.resyncs.labels(kind, trigger, outcome).inc()
        self._metrics.resync_seconds.labels(kind).observe(seconds)
        now = utc_now()
        if outcome == "done":
            self._metrics.last_resync.labels(kind).set(now.timestamp())
        if kind == "full":
            self.last_resync_failed = outcome == "failed"
        if kind == "full" or outcome == "failed" or (changed and trigger not in ("event", "sweep")):
            self.recent.appendleft(
                RecentRun(kind, trigger, outcome, now, round(seconds, 3), examined, changed)
            )

    def record_drift(self, repositories: int) -> None:
        """Count wrong rows that a periodic sweep found and no change had announced."""
        self._metrics.drift_repaired.inc(repositories)
        self._history.add_drift(utc_now(), repositories)
