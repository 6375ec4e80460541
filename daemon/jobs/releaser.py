"""The releaser: sends the jobs that wait in the database to Inngest, in order.

    waiting ──release──▶ released ──accepted──▶ in flight ──ended, by background_jobs──▶ gone
       ▲                    │  └──refused permanently──▶ failed, with the reason in its row
       ├────not for now─────┤
       └───claim expired────┘

    in flight ──lease expired without a report──▶ lost ──▶ in flight, in addition to the others
                                                   └──too many times──▶ failed

`release_ordered_jobs` decides which jobs are next, and how many may be in flight; any number of daemons may
call it at once. Until its job is sent, a release is only a claim, which expires after a minute if the daemon
dies. A job is sent under the same event id whenever it is released, so Inngest ignores repeats for 24 hours:
nothing is lost, and nothing runs twice within that time. A lost job takes no place from the others. Before it
is sent again, Inngest is asked about its run, if there is a signing key.

If Inngest fails or is slow, only releases stop. Jobs that could not be sent wait again in their old places,
where a change of priority still reaches them; then one job at a time is tried, with a delay that grows to
20 s. While the database fails, the delay between calls grows to ten seconds. Either is longer, up to five
minutes, if the server asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

import anyio
import structlog

from priorityd.core.backoff import Backoff
from priorityd.core.errors import PermanentError, PriorityError, TransientError
from priorityd.core.inngest.outgoing_events import OutgoingEvent, Refused
from priorityd.core.jobs.lost import RunStatus, status_of_runs
from priorityd.core.jobs.released import ReleasedJob, ReleaseLimits, event_id, released_event
from priorityd.core.pacing import SweepPace
from priorityd.core.priorities import PRIORITIES
from priorityd.core.vocabulary import PriorityForm
from priorityd.daemon.clock import monotonic
from priorityd.daemon.inngest.delivery import Batch, Delivery, NotForNow
from priorityd.daemon.inngest.sender import EventSender
from priorityd.daemon.jobs.metrics import ReleaseMetrics
from priorityd.daemon.jobs.ordered_jobs import OrderedJobs, Release, UnwritableJob
from priorityd.daemon.liveness import Liveness

if TYPE_CHECKING:
    from priorityd.daemon.inngest.api import InngestApi

log = structlog.stdlib.get_logger()

BATCH_SIZE: Final = 100
"""Jobs per release: few, so that the order of the next ones still follows later changes."""
BUSY_POLL_SECONDS: Final = 0.2
"""Between releases while jobs wait or are in flight; an idle worker waits about half of it for a job."""
IDLE_POLL_SECONDS: Final = 1.0
ASK_SECONDS: Final = 5.0
"""The time-out for asking about lost jobs, while others wait; without an answer, they are sent again."""
ASK_AT_ONCE: Final = 10
CHECK_SECONDS: Final = 10.0
"""Between checks for misplaced lanes; stretched so that they take little of the database's time."""


class Releaser(Delivery[ReleasedJob]):
    """See the module's docstring. Only the leader looks for misplaced lanes.

    `release` is the answer to the last release, None before the first; `held_back_because` is why no job can
    be sent, None while jobs can.
    """

    name = "releaser"
    defect = "job_release_failed_unexpectedly"

    def __init__(
        self,
        jobs: OrderedJobs,
        sender: EventSender,
        runs: InngestApi | None = None,
        *,
        limits: ReleaseLimits,
        form: PriorityForm,
        is_leader: Callable[[], bool],
        metrics: ReleaseMetrics,
        liveness: Liveness,
    ) -> None:
        super().__init__(sender, liveness)
        self._jobs = jobs
        self._runs = runs
        self._limits = limits
        self._form: PriorityForm = form
        self._is_leader = is_leader
        self._metrics = metrics
        self._pace = SweepPace(CHECK_SECONDS, CHECK_SECONDS)
        self._next_at = monotonic()
        self.release: Release | None = None
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
            await self.settle_rest()
            await self._check_lanes()
            release = await self._jobs.release(self._limits, 1 if self.held_back_because else BATCH_SIZE)
            self._show(release)
            jobs = await self._settle_lost(release.jobs)
            batch = self._batch(jobs)
            error = await self.deliver(batch) if jobs else None
        except (TransientError, PermanentError) as failure:
            return self._failed(self._database_backoff, failure, "job_release_failed")
        self._database_backoff.worked()
        if error is not None:
            return self._failed(self._backoff, error, "job_releases_held_back")
        if release.refused and not release.jobs:
            return self._not_written(release)
        self._went_well(release, tried=bool(batch.events))
        if release.more:
            return 0.0
        idle = not (release.busy or release.waiting or release.in_flight)
        return IDLE_POLL_SECONDS if idle else BUSY_POLL_SECONDS

    async def _settle_lost(self, jobs: Sequence[ReleasedJob]) -> list[ReleasedJob]:
        """Ask Inngest about the lost jobs; returns those that are to be sent."""
        statuses = await self._ask([job for job in jobs if job.losses])
        if statuses:
            log.info("lost_jobs_checked", statuses=dict(Counter(statuses.values())))
            answer = await self._jobs.settle_lost(statuses, self._limits.lease_seconds)
            self._log_unwritten(answer.refused)
        return [job for job in jobs if job.job_id not in statuses]

    async def _ask(self, lost: Sequence[ReleasedJob]) -> dict[UUID, RunStatus]:
        statuses: dict[UUID, RunStatus] = {}
        if self._runs is None:
            return statuses
        runs, limiter = self._runs, anyio.CapacityLimiter(ASK_AT_ONCE)

        async def ask(job: ReleasedJob, event_id: str) -> None:
            async with limiter:
                try:
                    found = status_of_runs(await runs.run_statuses(event_id))
                except PriorityError as error:
                    log.warning(
                        "lost_job_check_failed",
                        job_id=str(job.job_id),
                        repository_id=str(job.repository_id),
                        name=job.repository_name,
                        error=str(error),
                    )
                    return
            if found is not None:
                statuses[job.job_id] = found

        with anyio.move_on_after(ASK_SECONDS):
            async with anyio.create_task_group() as tasks:
                for job in lost:
                    if job.event_id:
                        tasks.start_soon(ask, job, job.event_id)
        return statuses

    def _batch(self, jobs: Sequence[ReleasedJob]) -> Batch[ReleasedJob]:
        batch = Batch[ReleasedJob]()
        for job in jobs:
            try:
                batch.add(job, [released_event(job, self._form)])
            except PermanentError as error:
                batch.add_refused(job, self._refused(job, str(error)))
        return batch

    def on_sent(self, item: ReleasedJob, _event: OutgoingEvent) -> None:
        """Count it, and log it if it was promoted."""
        self._metrics.released.labels(item.priority).inc()
        if item.promoted:
            self._metrics.promotions.labels(item.priority).inc()
            log.info(
                "job_promoted",
                job_id=str(item.job_id),
                repository_id=str(item.repository_id),
                name=item.repository_name,
                priority=item.priority,
                waited_seconds=round(item.waited_seconds),
            )

    def on_refused(self, item: ReleasedJob, refused: Refused) -> str:
        """Log it."""
        return self._refused(item, refused.reason)

    def on_tried(self, _batch: Batch[ReleasedJob], error: NotForNow | None) -> None:
        """Hold back all jobs while Inngest accepts none."""
        if error is not None:
            self.held_back_because = str(error)
            self._metrics.held_back.set(1)

    async def settle(self, batch: Batch[ReleasedJob]) -> None:
        """Mark the jobs that were sent, fail the refused ones, and return the rest."""
        sent, unsent = [each.job_id for each in batch.sent], [each.job_id for each in batch.unsent]
        if sent:
            ids = {job_id: batch.inngest_ids.get(event_id(job_id)) for job_id in sent}
            await self._jobs.mark_sent(ids, self._limits.lease_seconds)
        if batch.refused:
            answer = await self._jobs.fail({job.job_id: reason for job, reason in batch.refused})
            self._log_unwritten(answer.refused)
        if unsent:
            await self._jobs.return_unsent(unsent)
        if sent:
            log.info("jobs_released", jobs=len(sent))

    def _refused(self, job: ReleasedJob, reason: str) -> str:
        log.error(
            "job_refused",
            job_id=str(job.job_id),
            repository_id=str(job.repository_id),
            name=job.repository_name,
            error=reason,
        )
        return reason

    async def _check_lanes(self) -> None:
        started_at = monotonic()
        if not self._is_leader() or started_at < self._pace.next_periodic_at(started_at):
            return
        try:
            check = await self._jobs.check_lanes()
        except (TransientError, PermanentError) as error:
            # Only the order suffers: releases must not wait for it.
            self.tick()
            self._pace.finished(started_at, None)
            log.warning("job_lanes_check_failed", error=str(error))
            return
        self._pace.finished(started_at, check.database_seconds)
        if check.found:
            log.info("job_lanes_moved", lanes=check.found)

    def _show(self, release: Release) -> None:
        if release.busy:
            return
        self.release = release
        self._metrics.lost_now.set(release.lost_now)
        for job in release.given_up:
            self._metrics.given_up.inc()
            log.error(
                "job_given_up",
                job_id=str(job.job_id),
                repository_id=str(job.repository_id) if job.repository_id else None,
                name=job.name,
                error="its lease expired too often",
            )
        self._log_unwritten(release.refused)
        for priority in PRIORITIES:
            self._metrics.in_flight.labels(priority).set(release.in_flight.get(priority, 0))
            lost = release.lost.get(priority, 0)
            self._metrics.lost.labels(priority).inc(lost)
            if lost:
                log.warning("jobs_lost", priority=priority, jobs=lost)

    def _log_unwritten(self, refused: Sequence[UnwritableJob]) -> None:
        for each in refused:
            self._metrics.unwritable.inc()
            log.warning(
                "job_write_refused",
                job_id=str(each.job_id),
                repository_id=str(each.repository_id) if each.repository_id else None,
                name=each.name,
                error=each.reason,
            )

    def _not_written(self, release: Release) -> float:
        """None of the rows could be written: that is a single fault, not one per job."""
        reason = f"background_jobs accepts no writes: {release.refused[0].reason}"
        self.held_back_because = reason
        self._metrics.held_back.set(1)
        error = TransientError(reason, reason="unavailable")
        return self._failed(self._backoff, error, "job_releases_held_back")

    def _went_well(self, release: Release, *, tried: bool) -> None:
        if tried or not (release.busy or release.waiting or release.jobs):
            self.held_back_because = None
            self._metrics.held_back.set(0)
        if self.held_back_because is None:
            self._backoff.worked()

    def _failed(self, backoff: Backoff, error: PriorityError, event: str) -> float:
        delay = backoff.failed(monotonic(), error)
        log.warning(event, error=str(error), retry_in_seconds=round(delay, 1))
        return delay
