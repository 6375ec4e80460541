"""Watches what periodic sweeps find, and reports what the stream should have delivered.

`core.apply.drift` decides which rows are suspect, and for how long. Those whose change has not arrived are
looked up: a row can also become wrong because a workspace was switched off or on, which changes no membership
row.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from priorityd.core.apply.drift import DriftJudge
from priorityd.core.database.answers import SyncAnswer
from priorityd.core.errors import PermanentError, TransientError
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.database.rows import Explanation
from priorityd.daemon.database.store import Store
from priorityd.daemon.repair.runs import Runs

log = structlog.stdlib.get_logger()

RIGHT_FOR_SECONDS: Final = 60.0
"""That an earlier sweep found a row right says nothing about what happened much later."""
LOOKED_AT: Final = 20
"""The most suspects that are looked up, at a few milliseconds each."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """When a sweep looked at everything, and which rows it left wrong."""

    at: float
    left: frozenset[UUID]


class DriftWatch:
    """See the module's docstring. `whole_since`: since when the stream can be blamed; None while it can't."""

    def __init__(
        self,
        store: Store,
        judge: DriftJudge,
        runs: Runs,
        database_clock: DatabaseClock,
        whole_since: Callable[[], float | None],
    ) -> None:
        self._store = store
        self._judge = judge
        self._runs = runs
        self._database_clock = database_clock
        self._whole_since = whole_since
        self._seen: _Seen | None = None
        self.drift_repaired = 0

    @property
    def waits(self) -> bool:
        """Whether suspects are to be judged soon."""
        return self._judge.suspects > 0

    def suspect(self, answer: SyncAnswer) -> None:
        """A periodic sweep has found and corrected these rows."""
        seen, now = self._seen, monotonic()
        if seen is not None and now - seen.at <= RIGHT_FOR_SECONDS:
            found = (change.repository_id or change.id for change in answer.changes)
            self._judge.suspect((each for each in found if each not in seen.left), now, seen.at)

    def saw(self, started_at: float, left: frozenset[UUID] | None) -> None:
        """A sweep has corrected everything but `left`; None if it has not seen everything."""
        self._seen = None if left is None else _Seen(started_at, left)

    async def judge(self) -> None:
        """Report the suspects whose change should have arrived by now."""
        suspects = self._judge.confirmed(monotonic(), self._whole_since())
        repositories = await self._count(suspects) if suspects else 0
        if repositories:
            self.drift_repaired += repositories
            self._runs.record_drift(repositories)
            log.warning("drift_repaired", repositories=repositories)

    async def _count(self, suspects: list[tuple[UUID, float]]) -> int:
        """How many of them the stream is to blame for, judged by those that can be looked up."""
        looked_at = blamed = 0
        # What fails for one fails for the others as well, and the sweep waits meanwhile.
        with suppress(TransientError):
            for each in suspects[:LOOKED_AT]:
                blamed += await self._is_to_blame(*each)
                looked_at += 1
        return round(len(suspects) * blamed / looked_at) if looked_at else 0

    async def _is_to_blame(self, repository_id: UUID, right_at: float) -> bool:
        now = self._database_clock.now()
        since = now - timedelta(seconds=monotonic() - right_at) if now else None
        try:
            explanation = await self._store.explain(repository_id)
        except PermanentError:
            return False
        return membership_changed(explanation, since)


def membership_changed(explanation: Explanation, since: datetime | None) -> bool:
    """Whether a membership of the repository may have been added or removed since then."""
    workspaces = explanation.workspaces
    if any(not workspace.counts for workspace in workspaces):
        return False
    # Without any, the last one was removed. Without times of addition the answer can't be known.
    times = [workspace.added_at for workspace in workspaces]
    return not times or since is None or any(at is None or at >= since for at in times)
