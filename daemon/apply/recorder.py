"""What every answer of a writing function leads to: one log line and one count per changed row."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from priorityd.core.database.answers import PriorityUpdate, SyncAnswer
from priorityd.core.history import History
from priorityd.core.news import News
from priorityd.core.priorities import DEFAULT_PRIORITY, Trigger, level
from priorityd.daemon.apply.metrics import ApplyMetrics, Kind, Outcome
from priorityd.daemon.clock import utc_now
from priorityd.daemon.metrics import NO_PRIORITY

log = structlog.stdlib.get_logger()


CHANGES_KEPT: Final = 20
RUNS_KEPT: Final = 10


@dataclass(frozen=True, slots=True)
class RecentChange:
    """A change as the status page shows it; `at` is this host's clock."""

    at: datetime
    update: PriorityUpdate
    trigger: Trigger
    latency_seconds: float | None


@dataclass(frozen=True, slots=True)
class RecentRun:
    """A full resync, or a sweep that is worth showing; `examined` is None for a sweep."""

    kind: Kind
    trigger: Trigger
    outcome: Outcome
    ended_at: datetime
    seconds: float
    examined: int | None
    changed: int


class Recorder:
    """Tells logs, metrics and the history what was changed, and `recorded` that something was.

    `recent` has the newest changes first.
    """

    def __init__(self, metrics: ApplyMetrics, history: History, recorded: News) -> None:
        self._metrics = metrics
        self._recorded = recorded
        self._history = history
        self.recent: deque[RecentChange] = deque(maxlen=CHANGES_KEPT)
        self.recent_runs: deque[RecentRun] = deque(maxlen=RUNS_KEPT)
        self.last_change_at: datetime | None = None
        self.last_latency_seconds: float | None = None

    def record(
        self,
        answer: SyncAnswer,
        trigger: Trigger,
        *,
        committed_at: Mapping[UUID, datetime] | None = None,
        oldest_commit: datetime | None = None,
    ) -> None:
        """Record an answer.

        `committed_at` knows when the change of a repository was committed; for the others `oldest_commit` is
        taken: a sweep that removals asked for can't tell which of them concerned which row, so the latency
        of its rows is the longest it may have been. With neither there is no latency to observe.
        """
        for change in answer.changes:
            commit = (committed_at or {}).get(change.repository_id or change.id, oldest_commit)
            latency = max(0.0, (answer.applied_at - commit).total_seconds()) if commit else None
            self._record_one(change, trigger, latency)
        if answer.changes:
            self._recorded.tell()

    def record_run(
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

        Most sweeps find nothing, or what would have been found anyway: they would hide the others.
        """
        self._metrics.resyncs.labels(kind, trigger, outcome).inc()
        self._metrics.resync_seconds.labels(kind).observe(seconds)
        now = utc_now()
        if outcome == "done":
            self._metrics.last_resync.labels(kind).set(now.timestamp())
            if (kind, trigger) == ("full", "resync") and changed:
                self.record_drift(kind, changed)
        if kind == "full" or outcome == "failed" or (changed and trigger not in ("event", "sweep")):
            self.recent_runs.appendleft(
                RecentRun(kind, trigger, outcome, now, round(seconds, 3), examined, changed)
            )

    def record_drift(self, kind: Kind, repositories: int) -> None:
        """Count rows that a timer found wrong and that nothing had announced."""
        self._metrics.drift_repaired.labels(kind).inc(repositories)
        self._history.add_drift(utc_now(), repositories)

    def _record_one(self, change: PriorityUpdate, trigger: Trigger, latency: float | None) -> None:
        old, new = level(change.old_priority), level(change.new_priority) or DEFAULT_PRIORITY
        self._metrics.changes.labels(old or NO_PRIORITY, new, trigger).inc()
        if latency is not None:
            self._metrics.change_latency.labels(new).observe(latency)
            self.last_latency_seconds = latency
        self.last_change_at = utc_now()
        self._history.add_change(self.last_change_at, new, latency)
        self.recent.appendleft(RecentChange(self.last_change_at, change, trigger, latency))
        log.info(
            "priority_changed" if change.old_priority != change.new_priority else "workspaces_changed",
            repository_id=str(change.repository_id) if change.repository_id else None,
            repository=change.name,
            tracked_repository_id=str(change.id),
            old=change.old_priority,
            new=change.new_priority,
            is_workspace_repo=change.is_workspace_repo,
            workspace_count=change.workspace_count,
            trigger=trigger,
            latency_seconds=round(latency, 3) if latency is not None else None,
        )
