"""Ordered jobs in the database: queueing, releasing, settling and listing them.

Every call may be repeated. Errors are those of the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.jobs.lost import RunStatus
from priorityd.core.jobs.release_policy import promote_after_seconds
from priorityd.core.jobs.released import ReleasedJob, ReleaseLimits
from priorityd.core.names import job_known_as
from priorityd.core.priorities import Priority
from priorityd.daemon.database.store import Store

CLAIM_SECONDS: Final = 60.0
"""A released job must be sent within this time; if its daemon has died, another takes it over after that."""


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job with its repository's `owner/name` where that is known.

    `repository_id` is None where its row is gone.
    """

    job_id: UUID
    repository_id: UUID | None
    name: str | None

    @property
    def shown_as(self) -> str:
        """How people know the job."""
        return job_known_as(self.job_id, self.repository_id, self.name)


@dataclass(frozen=True, slots=True)
class UnwritableJob(NamedJob):
    """A job whose row in background_jobs the application's triggers or checks do not let change, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """The answer of `release_ordered_jobs`.

    `busy`: another daemon is releasing. `more`: ask again at once. `refused` could not be written, and wait.
    `lost` counts the leases that have just expired without a report, `in_flight` the released jobs that have
    neither ended nor been lost, of all daemons; both by the priority at release. `lost_now` is how many jobs
    are lost; `given_up` are those that have been lost too often. `waiting`: jobs wait.
    """

    busy: bool
    more: bool
    jobs: tuple[ReleasedJob, ...]
    refused: tuple[UnwritableJob, ...] = ()
    lost: Mapping[Priority, int] = field(default_factory=dict)
    given_up: tuple[NamedJob, ...] = ()
    lost_now: int = 0
    waiting: bool = False
    in_flight: Mapping[Priority, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusals:
    """Jobs whose end could not be written."""

    refused: tuple[UnwritableJob, ...]


@dataclass(frozen=True, slots=True)
class LaneCheck:
    """The answer of `check_job_lanes`: how many lanes were misplaced, and how long the check took."""

    found: int
    database_seconds: float


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job that was queued to be released in order, with its repository's priority at that moment."""

    job_id: UUID
    repository_id: UUID
    priority: Priority
    tracked: RepositoryPriority | None


@dataclass(frozen=True, slots=True)
class NotQueued:
    """A job that can't be queued: its place in the list, from 1, and why."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class Queued:
    """The answer of `queue_repository_jobs`. `queued` leaves out those that had been queued before."""

    queued: int
    jobs: tuple[WaitingJob, ...]
    refused: tuple[NotQueued, ...]


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job that waits or was released. `position` is its place among the waiting jobs of its type.

    `lost`: no report has come within its lease. `aside`: its row could not be written, and is retried.
    """

    job_id: UUID
    job_type: str
    repository_id: UUID
    name: str | None
    state: Literal["waiting", "released", "in_flight", "lost", "aside"]
    position: int | None
    priority: Priority
    queued_at: datetime
    released_at: datetime | None
    lease_until: datetime | None
    releases: int


@dataclass(frozen=True, slots=True)
class JobList:
    """The answer of `list_ordered_jobs`: the first of `found` jobs.

    `asked_seconds` is how long ago a daemon last asked for jobs to release, None if none ever has.
    """

    jobs: tuple[ListedJob, ...]
    found: int
    asked_seconds: float | None


@dataclass(frozen=True, slots=True)
class CountedJobs:
    """How many jobs of a type and priority wait, are in flight or are lost, and how long the oldest has
    waited."""

    job_type: str
    priority: Priority
    waiting: int
    in_flight: int
    lost: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class JobCounts:
    """The answer of `count_ordered_jobs`; `asked_seconds` as for `JobList`."""

    jobs: tuple[CountedJobs, ...]
    asked_seconds: float | None


@dataclass(frozen=True, slots=True)
class CancelledJobs:
    """How many jobs were cancelled, how many could not be called back because they were already released,
    which could not be written, and how many are locked by others: call again."""

    cancelled: int
    in_flight: int
    refused: tuple[UnwritableJob, ...] = ()
    locked: int = 0


class OrderedJobs:
    """The functions of ordered jobs, one method each; `daemon_id` owns the releases."""

    def __init__(self, store: Store, daemon_id: UUID) -> None:
        self._store = store
        self._daemon_id = str(daemon_id)

    async def release(self, limits: ReleaseLimits, most: int) -> Release:
        """Release up to `most` jobs, in order; they are to be sent now."""
        return await self._store.call(
            Release,
            "release_ordered_jobs",
            p_daemon_id=self._daemon_id,
            p_in_flight=limits.in_flight,
            p_limit=most,
            p_promote_after_seconds=promote_after_seconds(limits.deadline_seconds),
            p_claim_seconds=CLAIM_SECONDS,
            p_lease_seconds=limits.lease_seconds,
            p_most_leases=limits.most_leases,
        )

    async def mark_sent(self, event_ids: Mapping[UUID, str | None], lease_seconds: float) -> None:
        """Record that Inngest has accepted these jobs' events, under these ids of its own."""
        await self._store.call(
            dict[str, int],
            "mark_jobs_sent",
            p_job_ids=_texts(list(event_ids)),
            p_lease_seconds=lease_seconds,
            p_event_ids=list(event_ids.values()),
        )

    async def settle_lost(self, statuses: Mapping[UUID, RunStatus], lease_seconds: float) -> Refusals:
        """Record what Inngest says about lost jobs."""
        return await self._store.call(
            Refusals,
            "settle_lost_jobs",
            p_job_ids=_texts(list(statuses)),
            p_statuses=list(statuses.values()),
            p_lease_seconds=lease_seconds,
        )

    async def return_unsent(self, job_ids: Sequence[UUID]) -> None:
        """Return jobs that could not be sent for now: they wait again, in their old places."""
        await self._store.call(
            dict[str, int], "return_unsent_jobs", p_daemon_id=self._daemon_id, p_job_ids=_texts(job_ids)
        )

    async def fail(self, reasons: Mapping[UUID, str]) -> Refusals:
        """Mark jobs that will never be accepted as failed, with the reason for each."""
        return await self._store.call(
            Refusals, "fail_refused_jobs", p_job_ids=_texts(list(reasons)), p_reasons=list(reasons.values())
        )

    async def check_lanes(self) -> LaneCheck:
        """Look for misplaced lanes; the next release moves them."""
        return await self._store.call(LaneCheck, "check_job_lanes")


async def queue_in_order(store: Store, jobs: Sequence[Mapping[str, Any]]) -> Queued:
    """Queue jobs as `queue_repository_jobs` takes them; harmless to repeat if each has its `job_id`."""
    return await store.call(Queued, "queue_repository_jobs", p_jobs=list(jobs))


async def list_jobs(store: Store, job_type: str | None, repository_id: UUID | None, limit: int) -> JobList:
    """The released jobs, then the waiting ones, the next one first."""
    return await store.call(
        JobList,
        "list_ordered_jobs",
        p_job_type=job_type,
        p_repository_id=str(repository_id) if repository_id else None,
        p_limit=limit,
    )


async def count_jobs(store: Store) -> JobCounts:
    """How many jobs wait and are in flight, by type and priority, and whether any daemon releases them."""
    return await store.call(JobCounts, "count_ordered_jobs")


async def cancel_jobs(
    store: Store, job_ids: Sequence[UUID] | None, repository_id: UUID | None, job_type: str | None
) -> CancelledJobs:
    """Cancel these jobs, or all of a repository (of one type), if they are still waiting."""
    return await store.call(
        CancelledJobs,
        "cancel_ordered_jobs",
        p_job_ids=None if job_ids is None else _texts(job_ids),
        p_repository_id=str(repository_id) if repository_id else None,
        p_job_type=job_type,
    )


def _texts(ids: Sequence[UUID]) -> list[str]:
    return [str(each) for each in ids]
