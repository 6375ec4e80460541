"""Queueing ordered jobs: what is taken, what is refused, and what becomes of it."""

from __future__ import annotations

import json
import sys
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from priorityd.core.jobs.events import EVENT_NAMES
from tests.support.database import Database
from tests.support.ordered_calls import Json, end, job_row, queue, release, released
from tests.support.release_choice import Waiting, choose
from tests.support.world import World, session


def nested(levels: int) -> Json:
    data: Json = {}
    for _ in range(levels):
        data = {"a": data}
    return data


def json_of(value: object) -> str:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return json.dumps(value)
    finally:
        sys.setrecursionlimit(limit)


def test_a_queued_job_waits_in_the_applications_table_as_the_event_to_be(world: World) -> None:
    repository = world.tracked()
    (job,) = queue(
        world, repository, repository_name="acme/web", data={"days": 30, "metadata": {"source": "cron"}}
    )
    row = job_row(world, job)
    assert (row["type"], row["status"], UUID(row["repository_id"])) == ("recent-prs", "queued", repository)
    assert row["payload"] == {
        "repositoryId": str(repository),
        "repositoryName": "acme/web",
        "jobId": str(job),
        "days": 30,
        "metadata": {"source": "cron"},
    }


def test_queued_again_with_the_same_ids_nothing_is_queued_twice(world: World) -> None:
    repository, job = world.tracked(), uuid4()
    for expected in (1, 0):
        jobs = json.dumps([{"repository_id": str(repository), "job_id": str(job)}] * 2)
        answer = world.call("queue_repository_jobs", jobs, "reviews")
        assert answer["queued"] == expected
        assert {each["job_id"] for each in answer["jobs"]} == {str(job)}
    assert released(world) == [job]
    end(world, job)
    world.call("queue_repository_jobs", jobs, "reviews")
    assert released(world) == []


def test_one_call_may_queue_several_types(world: World) -> None:
    repository = world.tracked()
    jobs = [{"repository_id": str(repository), "job_type": each} for each in EVENT_NAMES]
    assert world.call("queue_repository_jobs", json.dumps(jobs))["queued"] == len(EVENT_NAMES)
    assert {job["job_type"] for job in release(world)["jobs"]} == set(EVENT_NAMES)


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ({"repository_id": None}, "has no repository_id that is a uuid"),
        ({"repository_id": "x"}, "has no repository_id that is a uuid"),
        ("x", "is not an object"),
        ({"job_id": 7}, "has a job_id that is not a uuid"),
        ({"repository_name": 7}, "has a repository_name that is not text"),
        ({"data": []}, "has data that is not an object"),
        ({"data": {"metadata": 1}}, "has data.metadata that is not an object"),
        (
            {"data": {"priority": 7, "jobId": 1}},
            "may not contain data.jobId, data.priority, which priorityd sets",
        ),
        (
            {"data": {"metadata": {"promoted": True}}},
            "may not contain data.metadata.promoted, which priorityd sets",
        ),
        ({"data": nested(101)}, "has data that is nested deeper than 100 levels"),
        ({"data": nested(3000)}, "has data that is nested deeper than 100 levels"),
        ({"data": {"n": 10**400}}, "has data with a number that is too large"),
        ({"data": {"text": "x" * 3_200_000}}, "has data of more than 3145728 bytes"),
        ({"job_type": "nonsense"}, "has no known job_type"),
    ],
)
def test_a_malformed_job_is_refused_alone_with_its_reason(world: World, job: Any, why: str) -> None:
    repository = {"repository_id": str(world.tracked())}
    bad = job if isinstance(job, str) else repository | job
    answer = world.call("queue_repository_jobs", json_of([repository, bad, repository]), "reviews")
    assert [(each["position"], each["reason"]) for each in answer["refused"]] == [(2, why)]
    assert answer["queued"] == len(answer["jobs"]) == len(released(world)) == 2
    built = world.value("select build_repository_job_events('reviews', %s)", json_of([repository, bad]))
    assert [(each["position"], each["reason"]) for each in built["refused"]] == [(2, why)]


@pytest.mark.parametrize("jobs", ["{}", "7", json.dumps([{}] * 5001)])
def test_what_is_no_list_of_jobs_is_refused_whole(world: World, jobs: str) -> None:
    with pytest.raises(psycopg.Error, match="must be an array of at most 5000 jobs") as refused:
        world.call("queue_repository_jobs", jobs, "reviews")
    assert refused.value.sqlstate == "22023"


def test_jobs_of_repositories_that_there_are_not_are_left_out_and_named(world: World) -> None:
    known, unknown = world.repository(), uuid4()
    jobs = json.dumps([{"repository_id": str(each)} for each in (unknown, known)])
    answer = world.call("queue_repository_jobs", jobs, "reviews")
    assert [UUID(each["repository_id"]) for each in answer["jobs"]] == [known]
    assert [(UUID(each["repository_id"]), each["reason"]) for each in answer["refused"]] == [
        (unknown, "there is no such repository")
    ]


def test_queueing_waits_for_no_release(database: Database, world: World) -> None:
    repository = world.tracked()
    queue(world, repository)
    releasing = session(database, autocommit=False)
    assert len(released(releasing)) == 1
    (later,) = queue(world, repository)  # would fail after its lock_timeout
    assert release(world) == {"busy": True, "more": False, "jobs": []}
    releasing.connection.commit()
    assert released(world, daemon=uuid4()) == [later]


def test_the_first_queueing_of_all_holds_nobody_up_however_long_it_takes(
    database: Database, world: World
) -> None:
    first = session(database, autocommit=False)
    (early,) = queue(first, world.tracked())
    repository = world.tracked()
    (later,) = queue(world, repository)
    assert released(world) == [later]
    world.add(repository)
    world.sync(repository)
    first.connection.commit()
    assert released(world, daemon=uuid4()) == [early]


def test_the_types_and_the_policy_are_the_same_in_sql_and_python(world: World) -> None:
    assert (
        dict(world.execute("select job_type, event_name from priorityd.job_types").fetchall()) == EVENT_NAMES
    )
    ages = [None, 0.0, 9.5, 10.0, 10.5, 11.0]
    for high, medium, low, last in product([True, False], ages, ages, [True, False]):
        row = world.execute(
            "select * from priorityd.choose_job_priority(%s, %s::float8, %s::float8, %s, 10)",
            high,
            medium,
            low,
            last,
        ).fetchone()
        choice = choose(Waiting(high, medium, low), promoted_last=last, promote_after_seconds=10)
        assert row == ((choice.priority, choice.promoted) if choice else (None, False)), (high, medium, low)
