"""`build_repository_job_events`: the events that Python builds, for any language."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.jobs.events import EVENT_NAMES, Job, job_event

if TYPE_CHECKING:
    from priorityd.core.vocabulary import JobType
    from tests.support.world import World


def build(world: World, job_type: str | None, *jobs: object) -> Any:
    return world.value("select build_repository_job_events(%s, %s)", job_type, json.dumps(jobs))


def looked_up(world: World, repository: UUID) -> RepositoryPriority | str:
    found = world.call("get_repository_priorities", [repository]).get(str(repository))
    return RepositoryPriority(**found) if found else "untracked"


@pytest.mark.parametrize("job_type", EVENT_NAMES)
def test_the_events_are_those_of_the_library(world: World, job_type: JobType) -> None:
    high, low, untracked, unknown = (
        world.tracked(),
        world.tracked(priority="low"),
        world.repository(),
        uuid4(),
    )
    bare = world.track(None)
    world.execute("update tracked_repositories set priority = null where id = %s", bare)
    nothing = world.tracked(priority=None, is_workspace_repo=None, workspace_count=None)
    world.add(high)
    world.sync(high)
    data = {"days": 30, "metadata": {"mine": True}, "nested": [None, {"a": 1.5}]}
    jobs = [
        Job(job_type, repository, name, fields, str(uuid4()))
        for repository in (high, low, untracked, unknown, nothing)
        for name, fields in ((None, {}), ("acme/web", data))
    ]
    built = build(
        world,
        job_type,
        *(
            {"repository_id": str(job.repository_id), "job_id": job.id, "data": job.data}
            | ({"repository_name": job.repository_name} if job.repository_name else {})
            for job in jobs
        ),
    )
    assert built["refused"] == []
    expected = [job_event(job, looked_up(world, job.repository_id), str(job.id)) for job in jobs]  # type: ignore[arg-type]
    assert built["events"] == [
        {"name": event.name, "id": event.id, "data": json.loads(json.dumps(event.data))} for event in expected
    ]


def test_a_malformed_job_is_refused_alone_and_named_by_its_position(world: World) -> None:
    repository = str(world.tracked())
    built = build(
        world,
        "reviews",
        {"repository_id": repository},
        {"repository_id": "x"},
        7,
        {"repository_id": repository, "job_type": "none"},
        {"repository_id": repository, "data": {"priority": 100}},
        {"repository_id": repository, "job_type": "comments"},
    )
    assert [event["name"] for event in built["events"]] == ["capture/pr.reviews", "capture/pr.comments"]
    assert [(each["position"], each["reason"]) for each in built["refused"]] == [
        (2, "has no repository_id that is a uuid"),
        (3, "is not an object"),
        (4, "has no known job_type"),
        (5, "may not contain data.priority, which priorityd sets"),
    ]


def test_every_event_has_an_id_of_its_own(world: World) -> None:
    repository = str(world.tracked())
    built = build(world, "reviews", *[{"repository_id": repository}] * 3)
    assert len({event["id"] for event in built["events"]}) == 3


@pytest.mark.parametrize(
    ("job_type", "jobs", "complaint"),
    [
        ("none", "[]", "there is no job type 'none'"),
        ("reviews", "{}", "must be an array of at most 5000 jobs"),
        ("reviews", json.dumps([{}] * 5001), "must be an array of at most 5000 jobs"),
    ],
)
def test_what_is_no_list_of_jobs_is_refused_whole(
    world: World, job_type: str, jobs: str, complaint: str
) -> None:
    with pytest.raises(psycopg.Error, match=complaint) as refused:
        world.value("select build_repository_job_events(%s, %s)", job_type, jobs)
    assert refused.value.sqlstate == "22023"
