"""A released job, and the event that it becomes.

The event is the one that would have queued the job directly, with its repository's priority at the time of
release, and two more fields: `jobId`, with which its worker reports in `background_jobs`, and
`metadata.promoted`. Its id is derived from the job's, so it stays the same when the job is released again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast
from uuid import UUID

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.core.jobs.events import OWN_FIELDS, Job, job_event
from priorityd.core.priorities import Priority
from priorityd.core.vocabulary import JobType, PriorityForm


@dataclass(frozen=True, slots=True)
class ReleasedJob:
    """A job of a release. `payload` is its row's, `tracked` its repository's row, None for an untracked one.

    `releases` is 1 unless it was released before; `turn` counts every release of the database. `losses` is
    how often its lease has expired without a report, `event_id` Inngest's id of the first event sent for it.
    """

    job_id: UUID
    job_type: str
    repository_id: UUID
    payload: Mapping[str, object]
    tracked: RepositoryPriority | None
    priority: Priority
    promoted: bool
    waited_seconds: float
    releases: int
    turn: int
    losses: int = 0
    event_id: str | None = None

    @property
    def repository_name(self) -> str | None:
        """What whoever queued the job called its repository."""
        name = self.payload.get("repositoryName")
        return name if isinstance(name, str) else None


@dataclass(frozen=True, slots=True)
class ReleaseLimits:
    """The limits of a release: jobs in flight of each type, times in seconds, and the number of leases
    without a report after which a job has failed."""

    in_flight: int
    deadline_seconds: float
    lease_seconds: float
    most_leases: int = 3


def event_id(job_id: UUID) -> str:
    """The id of the event that this job becomes, however often it is released."""
    return f"job:{job_id}"


def released_event(released: ReleasedJob, form: PriorityForm = "score") -> OutgoingEvent:
    """The event to send. Raises `PermanentError` for a payload that makes no event."""
    data = {key: value for key, value in released.payload.items() if key not in OWN_FIELDS}
    metadata = data.get("metadata", {})
    if isinstance(metadata, Mapping):
        data["metadata"] = {key: value for key, value in metadata.items() if key != "promoted"}
    # `Job` checks the type and the metadata: what this version does not know is refused.
    job = Job(
        cast(JobType, released.job_type),
        released.repository_id,
        released.repository_name,
        data,
    )
    event = job_event(job, released.tracked or "untracked", event_id(released.job_id), form)
    return replace(event, data=_released_data(event.data, released))


def _released_data(data: Mapping[str, object], released: ReleasedJob) -> dict[str, object]:
    metadata = data["metadata"]
    assert isinstance(metadata, Mapping)  # noqa: S101 - `job_event` has made it
    return {**data, "jobId": str(released.job_id), "metadata": {**metadata, "promoted": released.promoted}}
