"""The job watcher: counts the jobs that end in `background_jobs`, and those that wait.

The table is the application's: it is read, never written, and may be missing. The database keeps the cursor,
so that after a restart, or when another daemon takes over, counting continues where it stopped. The counters
start from zero with each process, as all Prometheus counters do.

    poll ─▶ page n ─▶ count it ─▶ poll (n is counted) ─▶ page n + 1 …

A page whose answer was lost comes again, as long as the number of the page before is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from priorityd.core.errors import PermanentError, TransientError
from priorityd.core.history import History
from priorityd.core.pacing import LookPace
from priorityd.core.priorities import PRIORITIES
from priorityd.daemon.agent import Agent
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.database.rows import (
    FinishedJobs,
    JobInversion,
    JobInversions,
    JobPage,
    JobQueue,
    NoJobs,
)
from priorityd.daemon.database.store import Store
from priorityd.daemon.jobs.metrics import JobMetrics
from priorityd.daemon.liveness import Liveness

log = structlog.stdlib.get_logger()

POLL_SECONDS: Final = 4.0
QUIET_POLL_SECONDS: Final = 120.0
"""While no job ends or waits. Jobs that end then are counted later, but none is missed."""
OFF_POLL_SECONDS: Final = 120.0
"""While there is nothing to read; the table may be added, or its indexes built, at any time."""
SHARE: Final = 0.01
"""The most of the database's time that polls may take: a long queue is polled less often."""
PAGE_SIZE: Final = 1000
_LEADER_CHECK_SECONDS: Final = 0.5
"""After a first start, jobs that end before the first poll are not counted, so it must come soon."""
INVERSIONS_KEPT: Final = 20


@dataclass(frozen=True, slots=True)
class TelemetryOff:
    """Why there is nothing to read. Without a table the application has no such jobs, and all is well."""

    because: str
    table_exists: bool = True


class JobWatcher(Agent):
    """See the module's docstring. Only the leader reads; the others show an empty queue.

    `off`: there is nothing to read; None while there is, or another daemon reads. `latest` is the last page
    read, `queue` the last count of the waiting jobs.
    """

    name = "job_watcher"

    def __init__(
        self,
        store: Store,
        daemon_id: UUID,
        *,
        is_leader: Callable[[], bool],
        history: History,
        metrics: JobMetrics,
        liveness: Liveness,
    ) -> None:
        super().__init__(liveness)
        self._store = store
        self._daemon_id = daemon_id
        self._is_leader = is_leader
        self._history = history
        self._metrics = metrics
        self._pace = LookPace(POLL_SECONDS, SHARE, QUIET_POLL_SECONDS)
        self._counted_page: int | None = None
        self._next_at = monotonic()
        self.off: TelemetryOff | None = None
        self.latest: JobPage | None = None
        self.queue: JobQueue | None = None
        self._inversions: deque[tuple[datetime, JobInversion]] = deque(maxlen=INVERSIONS_KEPT)

    async def turn(self) -> float:
        """Poll if it is time to, while this daemon is the leader."""
        if not self._is_leader():
            self._show(None)
            # What it knows will be out of date when it leads again, so it then reads at once.
            self.off, self.latest, self._next_at = None, None, monotonic()
            return _LEADER_CHECK_SECONDS
        if monotonic() >= self._next_at:
            rest = await self._poll()
            self._next_at = monotonic() + rest
        return self._next_at - monotonic()

    async def _poll(self) -> float:
        """Read what there is, and return the seconds until the next poll."""
        database_seconds, quiet = 0.0, True
        while not self._stopping and self._is_leader():
            try:
                answer = await self._store.poll_jobs(self._daemon_id, self._counted_page, PAGE_SIZE)
            except (TransientError, PermanentError) as error:
                if error.reason == "schema_cache":
                    self._stopped(TelemetryOff("the migration of job telemetry is not applied"))
                    return OFF_POLL_SECONDS
                log.warning("job_poll_failed", error=str(error))
                return POLL_SECONDS
            if isinstance(answer, NoJobs):
                self._stopped(TelemetryOff(answer.reason, answer.table_exists))
                return OFF_POLL_SECONDS
            self._take(answer)
            database_seconds += answer.database_seconds
            quiet = quiet and not answer.finished and not (answer.queue and answer.queue.jobs)
            if not answer.more:
                break
            self.tick()
        return self._pace.rest_after(database_seconds, quiet=quiet)

    @property
    def off_because(self) -> str | None:
        """Why there is nothing to read."""
        return self.off.because if self.off else None

    def _stopped(self, off: TelemetryOff) -> None:
        if off != self.off:
            log.warning("job_telemetry_stopped", error=off.because)
        self.off, self.latest = off, None
        self._show(None)

    def _take(self, page: JobPage) -> None:
        if self.off is not None:
            log.info("job_telemetry_started")
        self.off, self.latest, self._counted_page = None, page, page.page
        for finished in page.finished:
            self._count(finished)
        if page.inversions.count:
            self._found(page.inversions)
        if page.queue is not None:
            self._show(page.queue)

    def _found(self, inversions: JobInversions) -> None:
        now = utc_now()
        self._metrics.inversions.inc(inversions.count)
        self._history.add_job_inversions(now, inversions.count)
        self._inversions.extendleft((now, each) for each in reversed(inversions.sample))
        if inversions.sample:
            _tell_of(inversions)

    def inversions_since(self, then: datetime) -> list[JobInversion]:
        """Some of those that were found since then, the newest first."""
        return [inversion for found_at, inversion in self._inversions if found_at >= then]

    def _count(self, finished: FinishedJobs) -> None:
        metrics, priority = self._metrics, finished.priority
        metrics.ended.labels(priority, finished.status).inc(finished.jobs)
        self._history.add_jobs(utc_now(), priority, finished.status, finished.jobs)
        observed = [(metrics.wait, finished.wait_seconds), (metrics.duration, finished.run_seconds)]
        if finished.status == "completed":
            observed.append((metrics.turnaround, finished.total_seconds))
        for histogram, seconds in observed:
            labelled = histogram.labels(priority)
            for each in seconds:
                labelled.observe(each)

    def _show(self, queue: JobQueue | None) -> None:
        self.queue = queue
        self._metrics.age.set(queue.age_seconds if queue else 0.0)
        known = {each.priority: each for each in queue.jobs} if queue else {}
        for priority in PRIORITIES:
            found = known.get(priority)
            self._metrics.depth.labels(priority).set(found.jobs if found else 0)
            self._metrics.oldest.labels(priority).set(found.oldest_seconds if found else 0.0)


def _tell_of(inversions: JobInversions) -> None:
    """How many there were, and the last of them."""
    last = inversions.sample[0]
    log.warning(
        "jobs_inverted",
        jobs=inversions.count,
        job_id=str(last.job_id),
        repository_id=_shown(last.repository_id),
        name=last.name,
        waiting_job_id=str(last.waiting_job_id),
        waiting_repository_id=_shown(last.waiting_repository_id),
        waiting_name=last.waiting_name,
    )


def _shown(repository_id: UUID | None) -> str | None:
    return str(repository_id) if repository_id else None
