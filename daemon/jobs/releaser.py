"""The releaser: sends the jobs that wait in the database to Inngest, in their order.

    waiting ──release──▶ released ──accepted──▶ in flight ──background_jobs says that it is over──▶ gone
       ▲                    │  └─────refused for good──▶ failed, with the reason in its row
       ├────not for now─────┤
       ├─claim has run out──┘
       └─lease has run out, and nobody reported on it (in flight)

Which jobs are next, and how many may be in flight, is decided by `release_ordered_jobs`; any number of
daemons may ask it at once. Until it is sent, a release is only a claim, which a daemon that dies loses after
a minute. A job is sent under the same event id whenever it is released, so Inngest ignores the repeat for 24
hours: nothing is lost, and nothing runs twice beyond that.

Inngest failing or being slow stops releases and nothing else. What could not be sent waits again at its old
place, where a change of priority still reaches it; then one job at a time is tried, at a growing delay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import anyio
import structlog

from priorityd.core.backoff import Backoff
from priorityd.core.errors import KeyRefusedError, PermanentError, PriorityError, TransientError
from priorityd.core.inngest.outgoing_events import OutgoingEvent, Refused
from priorityd.core.jobs.released import ReleasedJob, ReleaseLimits, released_event
from priorityd.core.pacing import SweepPace
from priorityd.core.priorities import PRIORITIES
from priorityd.core.vocabulary import PriorityForm
from priorityd.daemon.agent import Agent
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.jobs.metrics import ReleaseMetrics
from priorityd.daemon.jobs.ordered_jobs import LaneCheck, Release
from priorityd.daemon.liveness import Progress

log = structlog.stdlib.get_logger()

BATCH_SIZE: Final = 100
"""Jobs per release: few enough that the next one's order is decided by what is true then."""
BUSY_POLL_SECONDS: Final = 0.2
"""Between releases while jobs wait or are in flight; a worker that has finished waits about half of it."""
IDLE_POLL_SECONDS: Final = 1.0
CHECK_SECONDS: Final = 10.0
"""Between looks for misplaced lanes, stretched so that they take little of the database's time."""
_FIRST_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 60.0
_RETURN_SECONDS: Final = 3.0
"""For giving claims back when the process is told to end in the middle of a batch."""


class JobReleases(Protocol):
    """What the releaser needs of the database."""

    async def release(self, limits: ReleaseLimits, most: int) -> Release: ...

    async def mark_sent(self, job_ids: Sequence[UUID], lease_seconds: float) -> None: ...

    async def return_unsent(self, job_ids: Sequence[UUID]) -> None: ...

    async def fail(self, reasons: dict[UUID, str]) -> None: ...

    async def check_lanes(self) -> LaneCheck: ...


class Sender(Protocol):
    """What the releaser needs of Inngest."""

    async def send(
        self, events: Sequence[OutgoingEvent], on_sent: Callable[[Sequence[OutgoingEvent]], None]
    ) -> list[Refused]: ...


@dataclass(slots=True)
class _Batch:
    """Released jobs by their events' ids, and what became of them."""

    unsent: dict[str, ReleasedJob] = field(default_factory=dict)
    sent: list[UUID] = field(default_factory=list)
    refused: dict[UUID, str] = field(default_factory=dict)


class Releaser(Agent):
    """See the module's text. Only the leader looks for misplaced lanes.

    `in_flight` and `waiting` are as of the last release; `held_back_because` is why Inngest takes nothing.
    """

    name = "releaser"

    def __init__(
        self,
        jobs: JobReleases,
        sender: Sender,
        *,
        limits: ReleaseLimits,
        form: PriorityForm,
        is_leader: Callable[[], bool],
        metrics: ReleaseMetrics,
        progress: Progress,
    ) -> None:
        super().__init__(progress)
        self._jobs = jobs
        self._sender = sender
        self._limits = limits
        self._form: PriorityForm = form
        self._is_leader = is_leader
        self._metrics = metrics
        self._pace = SweepPace(CHECK_SECONDS, CHECK_SECONDS)
        self._next_at = monotonic()
        self._unsettled: _Batch | None = None
        self._backoff = Backoff(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
        self.release: Release | None = None
        self.last_sent_at: datetime | None = None
        self.held_back_because: str | None = None

    async def turn(self) -> float:
        """Release if there may be something to release."""
        if monotonic() >= self._next_at:
            rest = await self._release()
            self._next_at = monotonic() + rest
        return self._next_at - monotonic()

    async def _release(self) -> float:
        """One release; returns the seconds until the next one."""
        try:
            await self._settle()
            await self._check_lanes()
            release = await self._jobs.release(self._limits, 1 if self.held_back_because else BATCH_SIZE)
            self._show(release)
            error = await self._send(release.jobs) if release.jobs else None
            await self._settle()
        except (TransientError, PermanentError) as failure:
            return self._failed(failure, "job_release_failed")
        if error is not None:
            self.held_back_because = str(error)
            self._metrics.held_back.set(1)
            return self._failed(error, "job_releases_held_back")
        self._went_well(release)
        if release.more:
            return 0.0
        idle = not (release.busy or release.waiting or release.in_flight)
        return IDLE_POLL_SECONDS if idle else BUSY_POLL_SECONDS

    async def _send(self, jobs: Sequence[ReleasedJob]) -> PriorityError | None:
        """Send, and note what became of each; why not all of them could be sent, or None."""
        batch = self._unsettled = _Batch()
        events = [event for job in jobs if (event := self._event(batch, job)) is not None]
        try:
            refused = await self._sender.send(events, lambda sent: self._sent(batch, sent))
        except (TransientError, KeyRefusedError) as error:
            return error
        except Exception as error:
            log.exception("release_failed_unexpectedly", jobs=len(jobs))
            return TransientError(type(error).__name__, reason="unknown")
        except BaseException:
            await self._give_back()
            raise
        for item in refused:
            self._refuse(batch, batch.unsent.pop(item.event.id), item.reason)
        return None

    def _event(self, batch: _Batch, job: ReleasedJob) -> OutgoingEvent | None:
        try:
            event = released_event(job, self._form)
        except PermanentError as error:
            self._refuse(batch, job, str(error))
            return None
        batch.unsent[event.id] = job
        return event

    def _sent(self, batch: _Batch, events: Sequence[OutgoingEvent]) -> None:
        self.beat()
        self.last_sent_at = utc_now()
        for event in events:
            job = batch.unsent.pop(event.id)
            batch.sent.append(job.job_id)
            self._metrics.released.labels(job.priority).inc()
            if job.promoted:
                self._metrics.promotions.labels(job.priority).inc()
                log.info(
                    "job_promoted",
                    job_id=str(job.job_id),
                    repository_id=str(job.repository_id),
                    priority=job.priority,
                    waited_seconds=round(job.waited_seconds),
                )

    def _refuse(self, batch: _Batch, job: ReleasedJob, reason: str) -> None:
        batch.refused[job.job_id] = reason
        log.error("job_refused", job_id=str(job.job_id), repository_id=str(job.repository_id), reason=reason)

    async def _settle(self) -> None:
        # Kept until all of it is written: each of these may be repeated.
        batch = self._unsettled
        if batch is None:
            return
        if batch.sent:
            await self._jobs.mark_sent(batch.sent, self._limits.lease_seconds)
        if batch.refused:
            await self._jobs.fail(batch.refused)
        if batch.unsent:
            await self._jobs.return_unsent([job.job_id for job in batch.unsent.values()])
        self._unsettled = None
        if batch.sent:
            log.info("jobs_released", jobs=len(batch.sent))

    async def _give_back(self) -> None:
        # Cancelled in the middle of a batch: others need not wait for the claims to run out.
        with anyio.move_on_after(_RETURN_SECONDS, shield=True):
            try:
                await self._settle()
            except (TransientError, PermanentError) as error:
                log.warning("claims_not_returned", error=str(error))

    async def _check_lanes(self) -> None:
        started_at = monotonic()
        if not self._is_leader() or started_at < self._pace.next_periodic_at(started_at):
            return
        check = await self._jobs.check_lanes()
        self._pace.finished(started_at, check.database_seconds)
        if check.found:
            log.warning("job_lanes_misplaced", lanes=check.found)

    def _show(self, release: Release) -> None:
        if release.busy:
            return
        self.release = release
        for priority in PRIORITIES:
            self._metrics.in_flight.labels(priority).set(release.in_flight.get(priority, 0))
            lost = release.lost.get(priority, 0)
            self._metrics.lost.labels(priority).inc(lost)
            if lost:
                log.warning("jobs_lost", priority=priority, jobs=lost)

    def _went_well(self, release: Release) -> None:
        if release.jobs or not (release.busy or release.waiting):
            self.held_back_because = None
            self._metrics.held_back.set(0)
        if self.held_back_because is None:
            self._backoff.worked()

    def _failed(self, error: PriorityError, event: str) -> float:
        delay = self._backoff.failed(monotonic(), error)
        log.warning(event, error=str(error), retry_seconds=round(delay, 1))
        return delay
