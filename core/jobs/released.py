"""A released job, and the event that it becomes.

The event is the one that would have queued the job directly, with its repository's priority as it is at the
release, and with two fields more: `jobId`, by which its worker reports in `background_jobs`, and
`metadata.promoted`. Its id comes from the job's, so it is the same whenever the job is released again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.errors import PermanentError
from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.core.jobs.events import Job, job_event
from priorityd.core.priorities import Priority
from priorityd.core.vocabulary import JobType, PriorityForm

_SET_HERE = frozenset({"repositoryId", "repositoryName", "priority", "priorityScore"})


@dataclass(frozen=True, slots=True)
class ReleasedJob:
    """One job of a release. `payload` is its row's, `tracked` its repository's row, None for an untracked
    one.

    `releases` is 1 unless it was released before; `turn` counts every release of the database.
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


@dataclass(frozen=True, slots=True)
class ReleaseLimits:
    """What a release keeps to: jobs in flight of each type, and times in seconds."""

    in_flight: int
    deadline_seconds: float
    lease_seconds: float


def refuse_clash(job: Job) -> None:
    """Raise `PermanentError` if the job's own data hold a field that is set at the release."""
    metadata = job.data.get("metadata", {})
    if "jobId" in job.data or (isinstance(metadata, Mapping) and "promoted" in metadata):
        raise PermanentError(
            "The data of an ordered job may not hold jobId or metadata.promoted: that is set here",
            reason="rejected",
        )


def event_id(job_id: UUID) -> str:
    """The id of the event that this job becomes, however often it is released."""
    return f"job:{job_id}"


def released_event(released: ReleasedJob, form: PriorityForm = "score") -> OutgoingEvent:
    """The event to send. Raises `PermanentError` for a payload that no event can be made of."""
    name = released.payload.get("repositoryName")
    data = {key: value for key, value in released.payload.items() if key not in _SET_HERE}
    metadata = data.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise PermanentError("The field metadata of a job must be an object", reason="rejected")
    data["metadata"] = {**metadata, "promoted": released.promoted}
    # `Job` looks at the type: one that this version does not know is refused.
    job = Job(
        cast(JobType, released.job_type),
        released.repository_id,
        name if isinstance(name, str) else None,
        data,
    )
    return job_event(job, released.tracked or "untracked", event_id(released.job_id), form)
