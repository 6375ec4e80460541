"""The way into the work queue, for whoever finds that a repository may be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from uuid import UUID

from priorityd.core.apply.drift import DriftJudge
from priorityd.core.apply.work_queue import WorkQueue
from priorityd.core.priorities import Trigger
from priorityd.core.stream.hints import Hint
from priorityd.daemon.clock import monotonic
from priorityd.daemon.wakeup import Wakeup

AskForSweep = Callable[[Trigger, datetime | None], None]


class Intake:
    """Adds to the queue and wakes the worker; what the queue can't hold, or no key names, becomes a sweep."""

    def __init__(
        self,
        queue: WorkQueue,
        work_added: Wakeup,
        *,
        drift_judge: DriftJudge,
        ask_for_sweep: AskForSweep,
    ) -> None:
        self._queue = queue
        self._drift_judge = drift_judge
        self._work_added = work_added
        self._ask_for_sweep = ask_for_sweep

    def take_hint(self, hint: Hint) -> None:
        """Look at what a change names."""
        self._drift_judge.announced(hint, monotonic())
        self.add(hint.repository_ids, hint.committed_at)
        if hint.needs_sweep:
            self._ask_for_sweep("event", hint.committed_at)

    def add(self, repository_ids: Iterable[UUID], committed_at: datetime | None = None) -> None:
        """Look at these."""
        now = monotonic()
        added = False
        for repository_id in repository_ids:
            added = True
            if not self._queue.add(repository_id, now, committed_at=committed_at):
                self._ask_for_sweep("overflow", committed_at)
        if added:
            self._work_added.set()

    def add_unless_parked(self, repository_ids: Iterable[UUID], committed_at: datetime | None = None) -> None:
        """Look at these, but for those that are known to fail: they have their own turn."""
        parked = self._queue.parked
        self.add((each for each in repository_ids if each not in parked), committed_at)
