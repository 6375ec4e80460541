"""Records the answer of a writing function: one log line and one count per changed row."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from priorityd.core.database.answers import PriorityUpdate, RefusedRow, SyncAnswer
from priorityd.core.history import History
from priorityd.core.news import News
from priorityd.core.priorities import DEFAULT_PRIORITY, Trigger, level
from priorityd.daemon.apply.metrics import ApplyMetrics
from priorityd.daemon.clock import utc_now
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.metrics import NO_PRIORITY

log = structlog.stdlib.get_logger()


CHANGES_KEPT: Final = 20
NAMES_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class RecentChange:
    """A change as the status page shows it; `at` is by this host's clock."""

    at: datetime
    update: PriorityUpdate
    trigger: Trigger
    latency_seconds: float | None


class Recorder:
    """Reports changed rows to the log, the metrics and the history, and fires `recorded`.

    `recent` has the newest changes first; `refused_names` are the known names of repositories whose row
    recently could not be written.
    """

    def __init__(
        self, metrics: ApplyMetrics, history: History, recorded: News, database_clock: DatabaseClock
    ) -> None:
        self._database_clock = database_clock
        self._metrics = metrics
        self._recorded = recorded
        self._history = history
        self.recent: deque[RecentChange] = deque(maxlen=CHANGES_KEPT)
        self.refused_names: OrderedDict[UUID, str] = OrderedDict()
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

        `committed_at` has the commit times of the repositories' changes; without one, `oldest_commit` is
        used: a sweep requested by removals can't tell which of them concerned which row, so its rows get the
        longest possible latency. With neither, no latency is observed.
        """
        self._database_clock.read(answer.applied_at)
        self._remember_refused(answer.refused)
        for change in answer.changes:
            commit = (committed_at or {}).get(change.repository_id or change.id, oldest_commit)
            latency = max(0.0, (answer.applied_at - commit).total_seconds()) if commit else None
            self._record_one(change, trigger, latency)
        if answer.changes:
            self._recorded.tell()

    def _remember_refused(self, rows: Sequence[RefusedRow]) -> None:
        for row in rows:
            if row.repository_id is not None and row.name is not None:
                self.refused_names[row.repository_id] = row.name
                self.refused_names.move_to_end(row.repository_id)
        while len(self.refused_names) > NAMES_KEPT:
            self.refused_names.popitem(last=False)

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
            name=change.name,
            tracked_repository_id=str(change.id),
            old=change.old_priority,
            new=change.new_priority,
            is_workspace_repo=change.is_workspace_repo,
            workspace_count=change.workspace_count,
            trigger=trigger,
            latency_seconds=round(latency, 3) if latency is not None else None,
        )
