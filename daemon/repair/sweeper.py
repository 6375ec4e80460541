"""The sweeper: finds rows that disagree with membership, by timer and whenever changes may have been missed.

The stream delivers at most once and can lose changes silently, and a removal under row level security does
not name its repository. Only a comparison with the database finds every such row. Only the leader sweeps by
timer; every daemon does the sweeps that its own stream requests.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from priorityd.core.apply.work_queue import WorkQueue
from priorityd.core.backoff import Backoff
from priorityd.core.call_size import CallSize
from priorityd.core.database.answers import SyncAnswer
from priorityd.core.errors import PermanentError, PriorityError, TransientError
from priorityd.core.pacing import SweepPace
from priorityd.core.repair.pending_runs import PendingRun, PendingRuns
from priorityd.daemon.agent import Agent
from priorityd.daemon.apply.intake import Intake
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.database.store import Store
from priorityd.daemon.leader.leadership import Leadership
from priorityd.daemon.liveness import TICK_SECONDS, Liveness
from priorityd.daemon.repair.drift_watch import DriftWatch
from priorityd.daemon.repair.runs import Runs
from priorityd.daemon.wakeup import Wakeup

log = structlog.stdlib.get_logger()

FIRST_LIMIT: Final = 250
SWEEP_LIMIT: Final = 5000
"""Rows that one call repairs, at first and at most."""
_AIM_SECONDS: Final = 1.0
UNPARK_LIMIT: Final = 50
"""Parked repositories that each sweep retries; each costs a call of its own."""
_FIRST_RETRY_SECONDS: Final = 0.5
_BY_TIMER: Final = "sweep"


class Sweeper(Agent):
    """See the module's docstring.

    `has_succeeded`: a sweep has found the wrong rows, and repaired them or handed them to the worker, or
    sweeping was left to the leader. `failure` is why the current sweep has not succeeded yet.
    """

    name = "sweeper"

    def __init__(
        self,
        store: Store,
        queue: WorkQueue,
        intake: Intake,
        pace: SweepPace,
        *,
        requests: PendingRuns,
        leadership: Leadership,
        drift_watch: DriftWatch,
        recorder: Recorder,
        runs: Runs,
        liveness: Liveness,
        work_added: Wakeup,
    ) -> None:
        super().__init__(liveness)
        self._store = store
        self._queue = queue
        self._intake = intake
        self._pace = pace
        self._leadership = leadership
        self._drift_watch = drift_watch
        self._recorder = recorder
        self._runs = runs
        self._work_added = work_added
        self._pending_runs = requests
        self._size = CallSize(FIRST_LIMIT, SWEEP_LIMIT, _AIM_SECONDS)
        self._backoff = Backoff(_FIRST_RETRY_SECONDS, pace.interval_seconds)
        self._trying_since: float | None = None
        self.has_succeeded = False
        self.failure: PriorityError | None = None
        self.last_done_at: datetime | None = None
        requests.added.subscribe(self.wake)
        leadership.gained.subscribe(self._take_over)

    def has_more(self) -> bool:
        """Whether a requested sweep has not been done yet."""
        return bool(self._pending_runs)

    async def turn(self) -> float:
        """Sweep if it is due, or leave it to the leader."""
        await self._drift_watch.judge()
        self.tick()
        now = monotonic()
        due_at = self._due_at(now)
        if now < due_at:
            # Suspects are judged by elapsed time.
            return min(1.0, due_at - now) if self._drift_watch.waits else due_at - now
        if self._pending_runs or self._leadership.is_held():
            await self._sweep(self._pending_runs.take() or PendingRun(_BY_TIMER))
        elif self._trying_since is not None and self._leadership.lease.failures:
            # The lease has run out in an outage: what failed has not become another daemon's yet.
            return TICK_SECONDS
        else:
            self._leave_to_leader(now)
        return 0.0

    @property
    def is_wanted(self) -> bool:
        """Whether a sweep is requested or under way."""
        return bool(self._pending_runs) or self._trying_since is not None

    def overdue_seconds(self) -> float:
        """How long the current sweep has been failing or hanging; 0 if there is none."""
        return 0.0 if self._trying_since is None else monotonic() - self._trying_since

    def _take_over(self) -> None:
        # There may have been no sweep for a while.
        self._pace.hurry()
        self.wake()

    def _due_at(self, now: float) -> float:
        waiting = self._pending_runs.waiting
        if waiting is None:
            due_at = self._pace.next_periodic_at(now)
        elif waiting.trigger == "event":
            due_at = self._pace.next_requested_at(now)
        else:
            due_at = self._pace.next_urgent_at(now)
        return max(due_at, self._backoff.retry_at)

    async def _sweep(self, request: PendingRun) -> None:
        started_at = monotonic()
        self._trying_since = self._trying_since or started_at
        try:
            changed, database_seconds = await self._sweep_all(request, started_at)
        except (TransientError, PermanentError) as error:
            self._failed(request, error, started_at)
        else:
            self._pace.finished(started_at, database_seconds)
            self._succeeded(request, changed, monotonic() - started_at)

    async def _sweep_all(self, request: PendingRun, started_at: float) -> tuple[int, float | None]:
        changed, database_seconds, waited, left = 0, 0.0, False, set[UUID]()
        while True:
            limit = self._size.rows
            answer = await self._call(request, limit)
            self._trying_since = monotonic()
            self._recorder.record(answer, request.trigger, oldest_commit=request.oldest_commit)
            if request.trigger == _BY_TIMER:
                self._drift_watch.suspect(answer)
            left |= {*answer.locked, *(row.repository_id or row.id for row in answer.refused)}
            changed += answer.changed
            database_seconds += answer.database_seconds
            waited = waited or bool(answer.locked)
            self._intake.add(answer.locked)
            self._intake.take_refused(answer.refused, request.oldest_commit)
            # If nothing changed, another round would find the same rows: they are locked or refused.
            stuck = answer.changed == 0 and self._size.rows == limit
            if not answer.more or stuck or not self._may_go_on(request):
                self._drift_watch.saw(started_at, None if answer.more else frozenset(left))
                if not answer.more:
                    self._intake.keep_nameless(left)
                return changed, None if waited else database_seconds
            self.tick()

    def _may_go_on(self, request: PendingRun) -> bool:
        return request.trigger != _BY_TIMER or self._leadership.is_held()

    async def _call(self, request: PendingRun, limit: int) -> SyncAnswer:
        try:
            answer = await self._store.sweep(request.trigger, limit)
        except TransientError as error:
            if error.reason != "timeout" or self._size.timed_out(limit):
                raise
            return await self._find(request, str(error))
        self._learn(answer, limit)
        return answer

    async def _find(self, request: PendingRun, why: str) -> SyncAnswer:
        """A single row takes too long: what is found goes to the worker, where no row waits for another."""
        answer = await self._store.sweep(request.trigger, SWEEP_LIMIT, dry_run=True)
        named = replace(answer, changes=tuple(row for row in answer.changes if row.repository_id is not None))
        return replace(named.as_left(why), more=True)

    def _learn(self, answer: SyncAnswer, limit: int) -> None:
        """Only writing counts: the cost of finding does not depend on the limit."""
        if answer.changed:
            self._size.answered(answer.changed, answer.writing_seconds)
        elif answer.more:
            self._size.answered(limit, 0.0)

    def _succeeded(self, request: PendingRun, changed: int, seconds: float) -> None:
        self._works()
        self.last_done_at = utc_now()
        self._runs.record("sweep", request.trigger, "done", seconds, changed=changed)
        self._unpark()

    def _leave_to_leader(self, now: float) -> None:
        self._pace.skipped(now)
        self._drift_watch.saw(now, None)
        self._intake.keep_nameless(())
        self._works()
        self._unpark()

    def _unpark(self) -> None:
        if self._queue.unpark(monotonic(), UNPARK_LIMIT):
            self._work_added.set()

    def _works(self) -> None:
        self.has_succeeded, self.failure, self._trying_since = True, None, None
        self._backoff.worked()

    def _failed(self, request: PendingRun, error: PriorityError, started_at: float) -> None:
        self.failure = error
        delay = self._backoff.failed(monotonic(), error)
        # A periodic sweep stays due, if this daemon is the leader then.
        if request.trigger != _BY_TIMER:
            self._pending_runs.put_back(request)
        self._report_failure(request, error, started_at, delay)

    def _report_failure(
        self, request: PendingRun, error: PriorityError, started_at: float, delay: float
    ) -> None:
        self._runs.record("sweep", request.trigger, "failed", monotonic() - started_at)
        log.warning(
            "sweep_failed", trigger=request.trigger, error=str(error), retry_in_seconds=round(delay, 1)
        )
