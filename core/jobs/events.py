"""Jobs, and what the events that queue them say about priority.

    {"repositoryId": "…", "repositoryName": "acme/web", "priority": 100, …the caller's own fields…,
     "metadata": {"isWorkspaceRepo": true, "workspaceCount": 2, "originalPriority": "high",
                  "priority": "high", "priorityScore": 100, "priorityLookup": "found", …the caller's own…}}

`priority` is a score or, for consumers that already read it as a word, a word with `priorityScore` beside it.
The metadata holds both in either form, so that consumers can be changed before or after a switch.
`originalPriority` is the tracked row's own. What is unknown is null: if the look-up failed, or the repository
has no tracked row, `priorityLookup` says so, and the job is queued at medium.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from uuid import UUID

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.errors import PermanentError
from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.core.priorities import DEFAULT_PRIORITY, Priority, score
from priorityd.core.vocabulary import JobType, PriorityForm

REPOSITORY_SYNC: Final = "capture/repository.sync.graphql"

EVENT_NAMES: Final[dict[JobType, str]] = {
    "historical-pr-sync": REPOSITORY_SYNC,
    "recent-prs": REPOSITORY_SYNC,
    "pr-details": "capture/pr.details.graphql",
    "reviews": "capture/pr.reviews",
    "comments": "capture/pr.comments",
    "repository-issues": "capture/repository.issues",
    "repository-discussions": "capture/repository.discussions",
}
"""The event that asks for each kind of job."""

LookUp: TypeAlias = RepositoryPriority | Literal["untracked", "failed"]
"""What is known about a repository's priority: its row, that it has none, or nothing."""

OWN_FIELDS: Final = frozenset({"jobId", "repositoryId", "repositoryName", "priority", "priorityScore"})
"""The fields of an event's data that are set here."""
_OWN_METADATA: Final = frozenset(
    {
        "isWorkspaceRepo",
        "workspaceCount",
        "originalPriority",
        "priority",
        "priorityScore",
        "priorityLookup",
        "promoted",
    }
)


@dataclass(frozen=True, slots=True)
class Job:
    """One job to queue.

    `data` are the caller's own fields of the event; its `metadata`, if any, is merged with ours. `id` lets
    Inngest recognise a repeat, for 24 hours; None lets the queue generate one.

    Raises `PermanentError` for an unknown job type, and if a field of the caller's has the name of one of
    ours, those of ordered jobs included: neither may be lost.
    """

    job_type: JobType
    repository_id: UUID
    repository_name: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)
    id: str | None = None

    def __post_init__(self) -> None:
        event_name(self.job_type)
        if not isinstance(self.data, Mapping):
            raise PermanentError("The data of a job must be an object", reason="rejected")
        _refuse_clash(OWN_FIELDS & self.data.keys(), "")
        metadata = self.data.get("metadata", {})
        if not isinstance(metadata, Mapping):
            raise PermanentError("The field metadata of a job must be an object", reason="rejected")
        _refuse_clash(_OWN_METADATA & metadata.keys(), "metadata.")


def event_name(job_type: str) -> str:
    """The event of a job type. Raises `PermanentError`, listing the known types, for an unknown one."""
    for known, name in EVENT_NAMES.items():
        if known == job_type:
            return name
    raise PermanentError(
        f"There is no job type {job_type!r:.80}; there are {', '.join(EVENT_NAMES)}", reason="rejected"
    )


def job_event(job: Job, look_up: LookUp, event_id: str, form: PriorityForm = "score") -> OutgoingEvent:
    """The event that queues the job, with what is known about its repository's priority."""
    return OutgoingEvent(event_name(job.job_type), event_data(job, look_up, form), event_id)


def event_data(job: Job, look_up: LookUp, form: PriorityForm = "score") -> dict[str, object]:
    """The `data` of that event."""
    priority = priority_of(look_up)
    own: dict[str, object] = {"repositoryId": str(job.repository_id)}
    if job.repository_name is not None:
        own["repositoryName"] = job.repository_name
    if form == "score":
        own["priority"] = score(priority)
    else:
        own |= {"priority": priority, "priorityScore": score(priority)}
    return own | dict(job.data) | {"metadata": _metadata(job, look_up, priority)}


def priority_of(look_up: LookUp) -> Priority:
    """The priority to queue with: medium where it is not known."""
    return look_up.effective if isinstance(look_up, RepositoryPriority) else DEFAULT_PRIORITY


def is_urgent(look_up: LookUp) -> bool:
    """Whether the repository is known to be in a workspace: such jobs are sent first."""
    return isinstance(look_up, RepositoryPriority) and bool(look_up.is_workspace_repo)


def _metadata(job: Job, look_up: LookUp, priority: Priority) -> dict[str, object]:
    row = look_up if isinstance(look_up, RepositoryPriority) else None
    callers = job.data.get("metadata", {})
    assert isinstance(callers, Mapping)  # noqa: S101 - `Job` has seen to that
    return {
        "isWorkspaceRepo": bool(row.is_workspace_repo) if row else None,
        "workspaceCount": row.workspace_count or 0 if row else None,
        "originalPriority": row.priority if row else None,
        "priority": priority,
        "priorityScore": score(priority),
        "priorityLookup": "found" if row else look_up,
    } | dict(callers)


def _refuse_clash(names: Set[str], prefix: str) -> None:
    if names:
        listed = ", ".join(prefix + name for name in sorted(names))
        raise PermanentError(f"A job's own data may not hold {listed}: that is set here", reason="rejected")
