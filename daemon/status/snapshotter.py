"""The snapshotter: counts all repositories at intervals, for the gauges and the status page.

Nearly everything that changes the counts is noticed: this daemon's own changes, and what comes through the
stream. While there are neither, counts are rarer. A failed count is retried soon and does not affect the
pace, since one time-out would otherwise make counts rare for an hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import structlog

from priorityd.core.errors import PermanentError, TransientError
from priorityd.core.news import News
from priorityd.core.pacing import LookPace
from priorityd.core.priorities import level
from priorityd.daemon.agent import Agent
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.database.rows import Snapshot
from priorityd.daemon.database.store import Store
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.metrics import NO_PRIORITY
from priorityd.daemon.status.metrics import SnapshotMetrics

log = structlog.stdlib.get_logger()

INTERVAL_SECONDS: Final = 15.0
QUIET_INTERVAL_SECONDS: Final = 120.0
"""While counts stay the same and no change is noticed; this is for changes that nothing announces."""
RETRY_SECONDS: Final = 5.0
SHARE: Final = 0.01
"""The most of the time that counting may take: if it takes long, because the database is large, it is
rarer."""


class Snapshotter(Agent):
    """See the module's docstring.

    `news` announces what may change the counts, `resynced` what certainly does. `latest_at` is when the
    latest count began (monotonic seconds).
    """

    name = "snapshotter"

    def __init__(
        self,
        store: Store,
        *,
        news: Iterable[News],
        resynced: News,
        database_clock: DatabaseClock,
        metrics: SnapshotMetrics,
        liveness: Liveness,
    ) -> None:
        super().__init__(liveness)
        self._store = store
        self._metrics = metrics
        self._database_clock = database_clock
        self._pace = LookPace(INTERVAL_SECONDS, SHARE, QUIET_INTERVAL_SECONDS)
        self._ended_at, self._rest = monotonic(), 0.0
        self._due_at: float | None = None
        self._changed = self._hurried = False
        self.latest: Snapshot | None = None
        self.latest_at: float | None = None
        self._inverted_since: float | None = None
        resynced.subscribe(self._hurry)
        for each in news:
            each.subscribe(self._hear)

    def overdue_seconds(self) -> float:
        """How long the next count is overdue; 0 if it is not yet due."""
        return max(0.0, monotonic() - (self._due_at or self._next_at()))

    def inverted_seconds(self) -> float:
        """How long every count has found inversions, from the first to the last; 0 if the last found none."""
        return 0.0 if self._inverted_since is None else (self.latest_at or 0.0) - self._inverted_since

    def _hurry(self) -> None:
        self._hurried = True
        self.wake()

    def _hear(self) -> None:
        # The next snapshot is not put off; once is enough for any number of changes.
        if not self._changed:
            self._changed = True
            self.wake()

    async def turn(self) -> float:
        """Take a snapshot if it is time to."""
        if monotonic() >= self._next_at():
            self._due_at = self._due_at or self._next_at()
            self._changed = self._hurried = False
            self._rest = await self._take()
            self._ended_at = monotonic()
        return self._next_at() - monotonic()

    def _next_at(self) -> float:
        if self._hurried:
            return self._ended_at
        rest = min(self._rest, self._pace.shortest_rest()) if self._changed else self._rest
        return self._ended_at + rest

    async def _take(self) -> float:
        """Take a snapshot; returns the seconds to rest after it."""
        began = monotonic()
        try:
            snapshot = await self._store.snapshot()
        except (TransientError, PermanentError) as error:
            log.warning("snapshot_failed", error=str(error))
            return RETRY_SECONDS
        old, self.latest, self.latest_at, self._due_at = self.latest, snapshot, began, None
        self._database_clock.read(snapshot.taken_at)
        self._show(snapshot)
        self._inverted_since = (self._inverted_since or began) if snapshot.inversions else None
        quiet = old is not None and _counts(old) == _counts(snapshot)
        seconds = monotonic() - began
        rest = self._pace.rest_after(seconds, quiet=quiet)
        # Inversions are worth another look soon.
        return min(rest, max(RETRY_SECONDS, seconds / SHARE)) if snapshot.inversions else rest

    def _show(self, snapshot: Snapshot) -> None:
        counts: Counter[tuple[bool, str]] = Counter()
        for row in snapshot.repositories:
            counts[row.is_workspace_repo, level(row.priority) or NO_PRIORITY] += row.count
        self._metrics.repositories.replace(counts)
        self._metrics.inversions.set(snapshot.inversions)
        self._metrics.untracked.set(snapshot.untracked)


def _counts(snapshot: Snapshot) -> tuple[object, ...]:
    return snapshot.repositories, snapshot.held, snapshot.inversions, snapshot.untracked
