"""What is announced about a recorded priority change.

`workspace/priority.changed` for every change:

    {"changeId": 17, "repositoryId": "…", "trackedRepositoryId": "…", "repositoryName": "acme/web",
     "oldPriority": "medium", "newPriority": "high", "isWorkspaceRepo": true, "workspaceCount": 1,
     "trigger": "event", "changedAt": "2025-01-03T12:00:00+00:00"}

and, when the repository has just become a workspace repository, a job that syncs it at priority 100, so that
the team that added it soon sees fresh data: as an ordered job where jobs are ordered, so that it does not
compete with them, else sent at once, as one more event.

Ids are made of the database's identity, the change's key and its time. So a change has the same ids however
often and by whichever daemon it is sent, while two databases that announce to one Inngest never share an id;
nor do the two histories of a restored database, which gives the same keys to other changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.core.jobs.events import REPOSITORY_SYNC, Job, job_event
from priorityd.core.vocabulary import PriorityForm

PRIORITY_CHANGED: Final = "workspace/priority.changed"
ANNOUNCED_EVENTS: Final = (PRIORITY_CHANGED, REPOSITORY_SYNC)


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A row of `repository_priority_changes` that waits to be announced."""

    id: int
    tracked_repository_id: UUID
    repository_id: UUID | None
    repository_name: str | None
    old_priority: str | None
    new_priority: str
    old_is_workspace_repo: bool | None
    is_workspace_repo: bool
    workspace_count: int
    trigger: str
    changed_at: datetime
    attempts: int = 1


def announcement_of(change: RecordedChange, database_id: UUID) -> OutgoingEvent:
    """The event that announces the change."""
    return OutgoingEvent(PRIORITY_CHANGED, _data(change), f"{_prefix(change, database_id)}/changed")


def sync_job_of(change: RecordedChange, database_id: UUID) -> Job | None:
    """The sync job for a new workspace repository, None for any other change; its id makes it run once."""
    joined = change.is_workspace_repo and not change.old_is_workspace_repo
    if not joined or change.repository_id is None:
        return None
    id_ = f"{_prefix(change, database_id)}/sync"
    return Job("recent-prs", change.repository_id, change.repository_name, id=id_)


def sync_event_of(change: RecordedChange, job: Job, form: PriorityForm) -> OutgoingEvent:
    """The event that queues that job at once."""
    row = RepositoryPriority(change.new_priority, change.is_workspace_repo, change.workspace_count)
    return job_event(job, row, str(job.id), form)


def _prefix(change: RecordedChange, database_id: UUID) -> str:
    return f"priorityd/{database_id}/{change.id}/{change.changed_at.timestamp():.6f}"


def _data(change: RecordedChange) -> dict[str, object]:
    return {
        "changeId": change.id,
        "repositoryId": str(change.repository_id) if change.repository_id else None,
        "trackedRepositoryId": str(change.tracked_repository_id),
        "repositoryName": change.repository_name,
        "oldPriority": change.old_priority,
        "newPriority": change.new_priority,
        "isWorkspaceRepo": change.is_workspace_repo,
        "workspaceCount": change.workspace_count,
        "trigger": change.trigger,
        "changedAt": change.changed_at.isoformat(),
    }
