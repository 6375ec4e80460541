"""The way into the work queue, for every part that finds a repository that may be wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from priorityd.core.apply.drift import DriftJudge
from priorityd.core.apply.work_queue import WorkQueue
from priorityd.core.database.answers import RefusedRow
from priorityd.core.news import News
from priorityd.core.priorities import Trigger
from priorityd.core.stream.hints import Hint
from priorityd.daemon.clock import monotonic
from priorityd.daemon.wakeup import Wakeup

log = structlog.stdlib.get_logger()

NAMELESS_KEPT: Final = 1000

AskForSweep = Callable[[Trigger, datetime | None], None]


class Intake:
    """Adds to the queue and wakes the worker; what has no key, or does not fit, becomes a sweep.

    `nameless` are the refused rows without a repository, by their own ids; at most `NAMELESS_KEPT` of them.
    """

    def __init__(
        self,
        queue: WorkQueue,
        work_added: Wakeup,
        *,
        drift_judge: DriftJudge,
        ask_for_sweep: AskForSweep,
        heard: News,
    ) -> None:
        self._queue = queue
        self._drift_judge = drift_judge
        self._work_added = work_added
        self._ask_for_sweep = ask_for_sweep
        self.nameless: dict[UUID, RefusedRow] = {}
        self._heard = heard

    def take_hint(self, hint: Hint) -> None:
        """Queue the repositories that a change names."""
        self._heard.tell()
        self._drift_judge.announced(hint, monotonic())
        self.add(hint.repository_ids, hint.committed_at)
        if hint.needs_sweep:
            self._ask_for_sweep("event", hint.committed_at)

    def add(self, repository_ids: Iterable[UUID], committed_at: datetime | None = None) -> None:
        """Queue these repositories."""
        now = monotonic()
        added = False
        for repository_id in repository_ids:
            added = True
            if not self._queue.add(repository_id, now, committed_at=committed_at):
                self._ask_for_sweep("overflow", committed_at)
        if added:
            self._work_added.set()

    def take_refused(self, rows: Sequence[RefusedRow], committed_at: datetime | None = None) -> None:
        """Hand rows that can't be written to the worker, except parked ones: they are retried anyway.

        A row without a repository can't be parked: it is reported until a sweep no longer finds it. Every
        sweep tries it again.
        """
        parked = self._queue.parked
        named = (row.repository_id for row in rows if row.repository_id is not None)
        self.add((each for each in named if each not in parked), committed_at)
        for row in rows:
            if row.repository_id is None and row.for_good:
                self._report_nameless(row)

    def keep_nameless(self, found: Collection[UUID]) -> None:
        """Forget the rows that a complete sweep has not found: they are right by now, or gone."""
        self.nameless = {key: row for key, row in self.nameless.items() if key in found}

    def _report_nameless(self, row: RefusedRow) -> None:
        known = self.nameless.get(row.id)
        if known == row or (known is None and len(self.nameless) == NAMELESS_KEPT):
            return
        self.nameless[row.id] = row
        log.error("row_refused", tracked_repository_id=str(row.id), name=row.name, error=row.reason)
