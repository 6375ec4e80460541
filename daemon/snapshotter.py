"""The snapshotter: counts the whole now and then, for the gauges and the status page."""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

import structlog

from core.errors import PermanentError, TransientError
from core.pacing import LookPace
from daemon.clock import monotonic
from daemon.metrics import NO_PRIORITY, Metrics
from daemon.progress import BEAT_SECONDS, Progress
from daemon.rows import Snapshot
from daemon.wakeup import Wakeup

log = structlog.stdlib.get_logger()

INTERVAL_SECONDS: Final = 15.0
SHARE: Final = 0.01
"""Of the time, at most: a database so large that counting takes long is counted less often."""


class SnapshotStore(Protocol):
    """What the snapshotter needs of the database."""

    async def snapshot(self) -> Snapshot: ...


class Snapshotter:
    """See the module's text."""

    def __init__(self, store: SnapshotStore, *, metrics: Metrics, progress: Progress) -> None:
        self._store = store
        self._metrics = metrics
        self._progress = progress
        self._wakeup = Wakeup()
        self._stopping = False
        self.latest: Snapshot | None = None

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True
        self._wakeup.set()

    async def run(self) -> None:
        """Take a snapshot at the interval, until `stop`."""
        next_at, pace = monotonic(), LookPace(INTERVAL_SECONDS, SHARE)
        while not self._stopping:
            self._progress.beat("snapshotter")
            began = monotonic()
            if began >= next_at:
                await self._take()
                next_at = monotonic() + pace.rest_after(monotonic() - began)
            await self._wakeup.wait(min(BEAT_SECONDS, max(0.0, next_at - monotonic())))
        self._progress.ended("snapshotter")

    async def _take(self) -> None:
        try:
            snapshot = await self._store.snapshot()
        except (TransientError, PermanentError) as error:
            log.warning("snapshot_failed", error=str(error))
            return
        self.latest = snapshot
        counts: Counter[tuple[bool, str]] = Counter()
        for row in snapshot.repositories:
            counts[row.is_workspace_repo, row.priority or NO_PRIORITY] += row.count
        self._metrics.repositories.replace(counts)
        self._metrics.inversions.set(snapshot.inversions)
        self._metrics.untracked.set(snapshot.untracked)
