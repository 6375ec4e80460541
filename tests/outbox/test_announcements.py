"""What is announced about a change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from priorityd.core.inngest.outgoing_events import MAX_EVENTS_PER_REQUEST, OutgoingEvent, batches, size_bytes
from priorityd.core.jobs.events import REPOSITORY_SYNC
from priorityd.core.outbox.announcements import (
    PRIORITY_CHANGED,
    RecordedChange,
    announcement_of,
    sync_event_of,
    sync_job_of,
)
from priorityd.core.vocabulary import PriorityForm

DATABASE, ANOTHER = UUID(int=1), UUID(int=2)
REPOSITORY, ROW = UUID(int=3), UUID(int=4)


def change(**fields: Any) -> RecordedChange:
    values: dict[str, Any] = {
        "id": 17,
        "tracked_repository_id": ROW,
        "repository_id": REPOSITORY,
        "repository_name": "acme/web",
        "old_priority": "medium",
        "new_priority": "high",
        "old_is_workspace_repo": False,
        "is_workspace_repo": True,
        "workspace_count": 2,
        "trigger": "event",
        "changed_at": datetime(2025, 1, 3, 12, tzinfo=UTC),
    }
    return RecordedChange(**(values | fields))


def events_of(change: RecordedChange, database_id: UUID, form: PriorityForm = "score") -> list[OutgoingEvent]:
    """All of it, where jobs are queued at once."""
    job = sync_job_of(change, database_id)
    told = announcement_of(change, database_id)
    return [told, sync_event_of(change, job, form)] if job else [told]


def test_a_repository_that_joined_a_workspace_is_announced_and_synced_at_100() -> None:
    told, sync = events_of(change(), DATABASE, "score")
    assert told.name == PRIORITY_CHANGED
    assert told.data == {
        "changeId": 17,
        "repositoryId": str(REPOSITORY),
        "trackedRepositoryId": str(ROW),
        "repositoryName": "acme/web",
        "oldPriority": "medium",
        "newPriority": "high",
        "isWorkspaceRepo": True,
        "workspaceCount": 2,
        "trigger": "event",
        "changedAt": "2025-01-03T12:00:00+00:00",
    }
    assert sync.name == REPOSITORY_SYNC
    assert (sync.data["repositoryId"], sync.data["repositoryName"]) == (str(REPOSITORY), "acme/web")
    assert sync.data["priority"] == 100
    assert sync.data["metadata"] == {
        "isWorkspaceRepo": True,
        "workspaceCount": 2,
        "originalPriority": "high",
        "priority": "high",
        "priorityScore": 100,
        "priorityLookup": "found",
    }


def test_the_priority_of_the_sync_is_a_word_where_consumers_read_words() -> None:
    _, sync = events_of(change(), DATABASE, "word")
    assert (sync.data["priority"], sync.data["priorityScore"]) == ("high", 100)


@pytest.mark.parametrize(
    "fields",
    [
        {"is_workspace_repo": False, "old_is_workspace_repo": True},
        {"old_is_workspace_repo": True},
        {"repository_id": None},
    ],
    ids=["it left", "it was one before", "it has no id"],
)
def test_others_are_announced_only(fields: dict[str, Any]) -> None:
    (told,) = events_of(change(**fields), DATABASE, "score")
    assert told.name == PRIORITY_CHANGED


def test_the_pasts_of_a_restored_database_share_no_ids() -> None:
    before = events_of(change(), DATABASE, "score")
    later = datetime(2025, 1, 3, 12, 0, 0, 1, tzinfo=UTC)
    after = events_of(change(changed_at=later), DATABASE, "score")
    assert not {event.id for event in before} & {event.id for event in after}


def test_ids_tell_events_changes_and_databases_apart_and_nothing_else() -> None:
    ids = [
        event.id
        for number in (17, 18)
        for database in (DATABASE, ANOTHER)
        for event in events_of(change(id=number), database, "score")
    ]
    assert len(set(ids)) == len(ids) == 8
    again = events_of(change(id=17, attempts=3), DATABASE, "word")
    assert [event.id for event in again] == ids[:2]


def test_batches_keep_the_order_and_the_limits() -> None:
    small = [OutgoingEvent("n", {"i": i}, str(i)) for i in range(MAX_EVENTS_PER_REQUEST + 1)]
    sizes = [len(batch) for batch in batches(small)]
    assert sum(sizes) == len(small)
    assert all(sum(map(size_bytes, batch)) <= 256 * 1024 for batch in batches(small))
    assert [event for batch in batches(small) for event in batch] == small
    large = OutgoingEvent("n", {"text": "x" * 300_000}, "large")
    assert [len(batch) for batch in batches([small[0], large, small[1]])] == [1, 1, 1]
    assert list(batches([])) == []
