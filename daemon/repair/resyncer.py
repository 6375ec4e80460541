"""The resyncer: walks over every tracked row, page by page, on a schedule, at the start and on request.

There is one walk at a time; one that is requested during another runs after it. A walk retries a failed page
twice, or with fewer rows after a time-out; then it has failed, but earlier pages stay done. However long the
walk, a few faults on the way do not end it: each page has its own retries. A row that takes too long by
itself is left to the worker. Only the leader follows the schedule.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import anyio
import structlog

from priorityd.core.database.answers import SyncAnswer, SyncResult
from priorityd.core.errors import PermanentError, TransientError
from priorityd.core.leader.lease import LEASE_SECONDS
from priorityd.core.news import News
from priorityd.core.priorities import Trigger
from priorityd.core.repair.pending_runs import PendingRun, PendingRuns
from priorityd.core.repair.schedule import Schedule
from priorityd.core.repair.walk import walk
from priorityd.daemon.agent import Agent
from priorityd.daemon.apply.intake import Intake
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.database.store import Store
from priorityd.daemon.liveness import TICK_SECONDS, Liveness
from priorityd.daemon.repair.metrics import Outcome
from priorityd.daemon.repair.runs import Runs

log = structlog.stdlib.get_logger()

RETRIES: Final = 2
"""Of one page; each is a call that has its own retries, for some seconds."""
REFUSED_KEPT: Final = 20
"""How many of the rows that the application refuses stay in `last_result`: there may be very many."""
_RETRY_SECONDS: Final = 2.0
_START_RETRY_SECONDS: Final = 5.0
_TAKEOVER: Final = timedelta(seconds=2 * LEASE_SECONDS)
"""How late a new leader still does a scheduled walk."""
_TAKEOVER_CHECK_SECONDS: Final = 1.0
_STOPPED: Final = "stopped before the end"


class _Waiter:
    """A caller that waits for the result of a walk."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.result = SyncResult()


class Resyncer(Agent):
    """See the module's docstring.

    `first_done_at` is when the first walk was done (monotonic seconds), None until then; `done` fires after
    each.
    """

    name = "resyncer"

    def __init__(
        self,
        store: Store,
        intake: Intake,
        schedule: str,
        *,
        is_leader: Callable[[], bool],
        recorder: Recorder,
        runs: Runs,
        done: News,
        liveness: Liveness,
    ) -> None:
        super().__init__(liveness)
        self._store = store
        self._intake = intake
        self._schedule = Schedule(schedule, utc_now())
        self._is_leader = is_leader
        self._recorder = recorder
        self._runs = runs
        self._done = done
        self._pending_runs = PendingRuns()
        self._pending_runs.add("start")
        self._waiters: list[_Waiter] = []
        self._retry_at = 0.0
        self.first_done_at: float | None = None
        self.last_done_at: datetime | None = None
        self.last_result: SyncResult | None = None

    @property
    def next_at(self) -> datetime:
        """When the next scheduled walk is due."""
        return self._schedule.next_at

    def request(self, trigger: Trigger) -> None:
        """Walk now, or once more after the current walk."""
        self._pending_runs.add(trigger)
        self.wake()

    async def walk(self, trigger: Trigger) -> SyncResult:
        """Walk, and wait for the result of a walk that started after this call."""
        waiter = _Waiter()
        self._waiters.append(waiter)
        self.request(trigger)
        await waiter.done.wait()
        return waiter.result

    async def turn(self) -> float:
        """Walk if it is time to. On stop, a walk ends after its current page."""
        self._heed_schedule()
        now = monotonic()
        if not self._pending_runs or now < self._retry_at:
            return self._seconds_to_wait(now)
        await self._resync(self._pending_runs.take() or PendingRun("resync"))
        return 0.0

    async def at_end(self) -> None:
        """Answer the callers that still wait."""
        _answer(self._waiters, SyncResult(errors=[_STOPPED]))

    def _heed_schedule(self) -> None:
        now = utc_now()
        if not self._schedule.is_due(now):
            return
        if self._is_leader():
            self._pending_runs.add("resync")
        elif now < self.next_at + _TAKEOVER:
            # If the leader has died, its successor does it.
            return
        self._schedule.go_on(now)

    def _seconds_to_wait(self, now: float) -> float:
        until_scheduled = (self.next_at - utc_now()).total_seconds()
        if until_scheduled <= 0:
            until_scheduled = _TAKEOVER_CHECK_SECONDS
        until_retry = self._retry_at - now if self._pending_runs else TICK_SECONDS
        return min(until_scheduled, until_retry)

    async def _resync(self, request: PendingRun) -> None:
        started_at = monotonic()
        waiters, self._waiters = self._waiters, []
        log.info("resync_started", trigger=request.trigger)
        result = await self._walk(request.trigger)
        _answer(waiters, result)
        seconds = monotonic() - started_at
        outcome: Outcome = "failed" if result.errors else "done"
        self._runs.record(
            "full",
            request.trigger,
            outcome,
            seconds,
            changed=result.priority_changes,
            examined=result.examined,
        )
        log.log(
            logging.WARNING if result.errors else logging.INFO,
            f"resync_{outcome}",
            trigger=request.trigger,
            seconds=round(seconds, 3),
            examined=result.examined,
            workspace_repos=result.workspace_repos,
            tracked_only_repos=result.tracked_only_repos,
            priority_changes=result.priority_changes,
            untracked=result.untracked,
            refused=len(result.refused),
            errors=result.errors,
        )
        if outcome == "done":
            self._succeeded(result)
        elif self.first_done_at is None:
            # Without a first full resync the daemon is never ready, so this one is retried indefinitely.
            self._pending_runs.put_back(request)
            self._retry_at = monotonic() + _START_RETRY_SECONDS

    def _succeeded(self, result: SyncResult) -> None:
        self.first_done_at = self.first_done_at or monotonic()
        self.last_done_at = utc_now()
        self.last_result = replace(result, refused=result.refused[:REFUSED_KEPT])
        self._done.tell()

    async def _walk(self, trigger: Trigger) -> SyncResult:
        return await walk(
            lambda after, page_size: self._page(after, page_size, trigger),
            lambda after, page_size: self._store.resync_page(after, page_size, trigger, dry_run=True),
            on_left=self._intake.take_refused,
        )

    async def _page(self, after: UUID | None, page_size: int, trigger: Trigger) -> SyncAnswer:
        failures = 0
        while not self._stopping:
            self.tick()
            try:
                return await self._make_right(after, page_size, trigger)
            except (TransientError, PermanentError) as error:
                # The walk retries what timed out, with fewer rows.
                if error.reason == "timeout" or failures == RETRIES:
                    raise
                failures += 1
                delay = _RETRY_SECONDS * failures
                log.warning("resync_page_failed", error=str(error), retry_in_seconds=delay)
            await self._wakeup.wait(delay)
        raise TransientError(_STOPPED, reason="unavailable")

    async def _make_right(self, after: UUID | None, page_size: int, trigger: Trigger) -> SyncAnswer:
        answer = await self._store.resync_page(after, page_size, trigger)
        self._recorder.record(answer, trigger)
        self._intake.add(answer.locked)
        self._intake.take_refused(answer.refused)
        return replace(answer, locked=())


def _answer(waiters: list[_Waiter], result: SyncResult) -> None:
    for waiter in waiters:
        waiter.result = result
        waiter.done.set()
