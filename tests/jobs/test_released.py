"""A released job and the event that it becomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.errors import PermanentError
from priorityd.core.jobs.events import Job, event_data
from priorityd.core.jobs.released import ReleasedJob, event_id, released_event

REPOSITORY, JOB = UUID(int=1), UUID(int=2)
ROW = RepositoryPriority("high", is_workspace_repo=True, workspace_count=3)


def released(**payload: Any) -> ReleasedJob:
    whole = {"repositoryId": str(REPOSITORY), "jobId": str(JOB), "priority": 25} | payload
    return ReleasedJob(JOB, "reviews", REPOSITORY, whole, ROW, "high", False, 1.0, 1, 1)


def test_it_is_the_event_of_a_direct_job_with_its_job_and_whether_it_was_promoted() -> None:
    event = released_event(released(days=30, repositoryName="acme/web", metadata={"source": "cron"}))
    direct = Job("reviews", REPOSITORY, "acme/web", {"days": 30, "metadata": {"source": "cron"}})
    data = event_data(direct, ROW)
    assert event.name == "capture/pr.reviews"
    assert event.data == {
        **data,
        "jobId": str(JOB),
        "metadata": {**data["metadata"], "promoted": False},  # type: ignore[dict-item]
    }


def test_the_priority_is_that_of_the_release_whatever_the_payload_says() -> None:
    assert released_event(released(priority=25)).data["priority"] == 100
    untracked = replace(released(), tracked=None, priority="medium")
    assert released_event(untracked).data["priority"] == 50
    word = released_event(released(), "word").data
    assert (word["priority"], word["priorityScore"]) == ("high", 100)


def test_its_id_is_the_same_however_often_it_is_released() -> None:
    again = replace(released(), releases=7, promoted=True, tracked=None)
    assert released_event(again).id == released_event(released()).id == event_id(JOB)
    assert event_id(uuid4()) != event_id(uuid4())


def test_a_payload_that_no_event_can_be_made_of_is_refused() -> None:
    for bad in (released(metadata=[1]), replace(released(), job_type="of a newer version")):
        with pytest.raises(PermanentError):
            released_event(bad)
