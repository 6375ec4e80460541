"""What the events that queue jobs say about priority."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.errors import PermanentError
from priorityd.core.jobs.events import EVENT_NAMES, Job, LookUp, event_data, event_name, job_event

REPOSITORY = UUID("11111111-1111-4111-8111-111111111111")
IN_WORKSPACES = RepositoryPriority("high", is_workspace_repo=True, workspace_count=2)
TRACKED_ONLY = RepositoryPriority("medium", is_workspace_repo=False, workspace_count=0)
PINNED_HIGH = RepositoryPriority("high", is_workspace_repo=False, workspace_count=0)
PINNED_LOW = RepositoryPriority("low", is_workspace_repo=False, workspace_count=0)


def data_of(look_up: LookUp, **data: Any) -> dict[str, Any]:
    return event_data(Job("recent-prs", REPOSITORY, "acme/web", data), look_up)


def test_a_workspace_repository_is_queued_at_100_with_all_about_it() -> None:
    assert data_of(IN_WORKSPACES, days=30) == {
        "repositoryId": str(REPOSITORY),
        "repositoryName": "acme/web",
        "priority": 100,
        "days": 30,
        "metadata": {
            "isWorkspaceRepo": True,
            "workspaceCount": 2,
            "originalPriority": "high",
            "priority": "high",
            "priorityScore": 100,
            "priorityLookup": "found",
        },
    }


@pytest.mark.parametrize(
    ("look_up", "score", "word"),
    [
        (TRACKED_ONLY, 50, "medium"),
        (PINNED_HIGH, 100, "high"),
        (PINNED_LOW, 25, "low"),
        ("untracked", 50, "medium"),
        ("failed", 50, "medium"),
    ],
)
def test_the_score_follows_the_priority_and_both_forms_are_always_in_the_metadata(
    look_up: LookUp, score: int, word: str
) -> None:
    job = Job("reviews", REPOSITORY, "acme/web")
    as_score, as_word = event_data(job, look_up), event_data(job, look_up, "word")
    assert (as_score["priority"], "priorityScore" in as_score) == (score, False)
    assert (as_word["priority"], as_word["priorityScore"]) == (word, score)
    for data in (as_score, as_word):
        metadata = data["metadata"]
        assert isinstance(metadata, dict)
        assert (metadata["priority"], metadata["priorityScore"]) == (word, score)


@pytest.mark.parametrize("look_up", ["untracked", "failed"])
def test_what_is_not_known_is_null_and_says_why(look_up: LookUp) -> None:
    metadata = data_of(look_up)["metadata"]
    assert metadata["priorityLookup"] == look_up
    assert {metadata[name] for name in ("isWorkspaceRepo", "workspaceCount", "originalPriority")} == {None}


@pytest.mark.parametrize(
    ("row", "priority", "original"),
    [
        (RepositoryPriority("medium", is_workspace_repo=True, workspace_count=1), 100, "medium"),
        (RepositoryPriority(None, is_workspace_repo=None, workspace_count=None), 50, None),
        (RepositoryPriority("critical", is_workspace_repo=False, workspace_count=0), 100, "critical"),
        (RepositoryPriority("urgent", is_workspace_repo=False, workspace_count=0), 50, "urgent"),
    ],
)
def test_a_row_that_is_not_right_yet_does_not_spoil_its_job(
    row: RepositoryPriority, priority: int, original: str | None
) -> None:
    data = data_of(row)
    assert (data["priority"], data["metadata"]["originalPriority"]) == (priority, original)


def test_the_callers_own_fields_are_untouched_and_not_changed_in_place() -> None:
    own = {"days": 7, "prNumbers": [1, 2], "metadata": {"source": "cron", "nested": {"a": None}}}
    before = json.dumps(own)
    data = event_data(Job("recent-prs", REPOSITORY, None, own), IN_WORKSPACES)
    metadata = data["metadata"]
    assert isinstance(metadata, dict)
    assert (data["days"], data["prNumbers"]) == (7, [1, 2])
    assert (metadata["source"], metadata["nested"], metadata["priority"]) == ("cron", {"a": None}, "high")
    assert "repositoryName" not in data
    assert json.dumps(own) == before


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"priority": "high"}, "priority"),
        ({"repositoryId": "x", "repositoryName": "y"}, "repositoryId, repositoryName"),
        ({"priorityScore": 1}, "priorityScore"),
        ({"metadata": {"workspaceCount": 9}}, "metadata.workspaceCount"),
        ({"metadata": "text"}, "metadata"),
        ({"jobId": "x"}, "jobId"),
        ({"metadata": {"promoted": True}}, "metadata.promoted"),
    ],
)
def test_a_field_that_would_be_overwritten_is_refused_by_name(own: dict[str, Any], named: str) -> None:
    with pytest.raises(PermanentError, match=named):
        data_of(TRACKED_ONLY, **own)


def test_the_event_has_the_name_of_its_job_type_and_the_id_that_it_is_given() -> None:
    job = Job("pr-details", REPOSITORY, "acme/web")
    event = job_event(job, IN_WORKSPACES, "night:1", "word")
    assert (event.name, event.id) == ("capture/pr.details.graphql", "night:1")
    assert event.data == event_data(job, IN_WORKSPACES, "word")


def test_every_job_type_has_its_event() -> None:
    assert {job_type: event_name(job_type) for job_type in EVENT_NAMES} == {
        "historical-pr-sync": "capture/repository.sync.graphql",
        "recent-prs": "capture/repository.sync.graphql",
        "pr-details": "capture/pr.details.graphql",
        "reviews": "capture/pr.reviews",
        "comments": "capture/pr.comments",
        "repository-issues": "capture/repository.issues",
        "repository-discussions": "capture/repository.discussions",
    }


def test_an_unknown_job_type_is_refused_with_a_list_of_those_there_are() -> None:
    with pytest.raises(PermanentError) as caught:
        Job("commits", REPOSITORY)  # type: ignore[arg-type]
    assert "'commits'" in str(caught.value)
    for job_type in EVENT_NAMES:
        assert job_type in str(caught.value)
