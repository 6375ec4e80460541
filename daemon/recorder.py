"""What every answer of a writing function leads to: one log line and one count per changed row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from uuid import UUID

import structlog

from core.answers import PriorityUpdate, SyncAnswer
from core.priorities import Trigger
from daemon.clock import utc_now
from daemon.metrics import NO_PRIORITY, Metrics

log = structlog.stdlib.get_logger()


class Recorder:
    """Tells logs and metrics what was changed, and `on_recorded` that something was."""

    def __init__(self, metrics: Metrics, on_recorded: Callable[[], None] = lambda: None) -> None:
        self._metrics = metrics
        self._on_recorded = on_recorded
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
            self._on_recorded()

    def _record_one(self, change: PriorityUpdate, trigger: Trigger, latency: float | None) -> None:
        self._metrics.changes.labels(change.old_priority or NO_PRIORITY, change.new_priority, trigger).inc()
        if latency is not None:
            self._metrics.change_latency.labels(change.new_priority).observe(latency)
            self.last_latency_seconds = latency
        self.last_change_at = utc_now()
        log.info(
            "priority_changed" if change.old_priority != change.new_priority else "workspaces_changed",
            repository_id=str(change.repository_id) if change.repository_id else None,
            tracked_repository_id=str(change.id),
            old=change.old_priority,
            new=change.new_priority,
            is_workspace_repo=change.is_workspace_repo,
            workspace_count=change.workspace_count,
            trigger=trigger,
            latency_seconds=round(latency, 3) if latency is not None else None,
        )
