"""Ordered jobs, one rule at a time; their order as a whole is in test_release_order.py."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from priorityd.core.jobs.events import EVENT_NAMES
from priorityd.core.jobs.release_policy import Waiting, choose
from priorityd.daemon.sandbox.migrate import apply_migrations, undo_migrations
from tests.sql.test_migrations import SCHEMAS
from tests.support.database import Database
from tests.support.world import Background, World, session

DAEMON = uuid4()
Json = dict[str, Any]


def queue(world: World, *repositories: UUID, job_type: str = "recent-prs", **fields: object) -> list[UUID]:
    jobs = [{"repository_id": str(each), **fields} for each in repositories]
    answer = world.call("queue_repository_jobs", json.dumps(jobs), job_type)
    assert answer["refused"] == []
    return [UUID(job["job_id"]) for job in answer["jobs"]]


def release(
    world: World, in_flight: int = 100, limit: int = 100, daemon: UUID = DAEMON, **named: Any
) -> Json:
    return world.call("release_ordered_jobs", daemon, in_flight, limit, **named)


def released(world: World, *args: Any, **named: Any) -> list[UUID]:
    return [UUID(job["job_id"]) for job in release(world, *args, **named)["jobs"]]


def sent(world: World, *jobs: UUID) -> None:
    world.call("mark_jobs_sent", list(jobs))


def end(world: World, *jobs: UUID, status: str = "completed") -> None:
    world.execute("update background_jobs set status = %s where id = any (%s)", status, list(jobs))


def held(world: World, workspace: UUID | None = None) -> UUID:
    """A repository in a workspace, and synced."""
    repository = world.tracked()
    world.add(repository, workspace)
    world.sync(repository)
    return repository


def job_row(world: World, job: UUID) -> Json:
    return world.value("select to_jsonb(b) from background_jobs b where id = %s", job)


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


# Queueing.


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
        ("x", "is no object"),
        ({"job_id": 7}, "has a job_id that is no uuid"),
        ({"repository_name": 7}, "has a repository_name that is no text"),
        ({"data": []}, "has data that are no object"),
        ({"data": {"metadata": 1}}, "has data.metadata that are no object"),
        ({"data": {"priority": 7, "jobId": 1}}, "may not hold data.jobId, data.priority: that is set here"),
        (
            {"data": {"metadata": {"promoted": True}}},
            "may not hold data.metadata.promoted: that is set here",
        ),
        ({"data": nested(101)}, "has data that are nested deeper than 100 levels"),
        ({"data": nested(3000)}, "has data that are nested deeper than 100 levels"),
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


# The order.


def test_the_priority_counts_that_a_repository_has_when_its_job_is_released(world: World) -> None:
    first, upgraded, downgraded = world.tracked(), world.tracked(), world.tracked()
    workspace = world.add(downgraded)
    world.sync(downgraded)
    jobs = queue(world, downgraded, first, upgraded)
    assert released(world, 1, 1) == [jobs[0]]
    end(world, jobs[0])
    (again,) = queue(world, downgraded)
    world.remove(downgraded, workspace)
    world.add(upgraded)
    world.sync(upgraded, downgraded)
    answer = release(world)["jobs"]
    assert [(UUID(job["job_id"]), job["priority"]) for job in answer] == [
        (jobs[2], "high"),
        (jobs[1], "medium"),
        (again, "medium"),
    ]
    assert answer[0]["tracked"] == {"priority": "high", "is_workspace_repo": True, "workspace_count": 1}
    payload = job_row(world, jobs[2])["payload"]
    assert (payload["priority"], payload["metadata"]) == (100, {"promoted": False})


def test_workspaces_take_turns_whoever_has_more(world: World) -> None:
    """Each has its turn, the one without one the longest first; within a turn the oldest."""
    busy, other = sorted((world.workspace(), world.workspace()))
    many = [held(world, busy) for _ in range(3)]
    one = held(world, other)
    pinned = world.tracked()
    world.pin(pinned, "high")
    jobs = queue(world, *many, many[0], one, pinned)
    # In no workspace is one more turn: that of the workspace ''.
    assert released(world) == [jobs[5], jobs[0], jobs[4], jobs[1], jobs[2], jobs[3]]
    end(world, *jobs)
    # Who comes back has not lost his place.
    more = queue(world, many[0], many[1], one)
    assert released(world) == [more[2], more[0], more[1]]


def test_a_shared_repository_counts_for_the_workspace_whose_turn_is_first(world: World) -> None:
    busy, other = world.workspace(), world.workspace()
    own = [held(world, busy) for _ in range(4)]
    first = queue(world, *own[:2])
    assert released(world) == first
    shared = held(world, busy)
    world.add(shared, other)
    world.sync(shared)
    jobs = queue(world, *own, shared)
    assert released(world, limit=1) == [jobs[4]]


def test_an_overdue_job_is_promoted_and_says_so(world: World) -> None:
    low, high = world.tracked(), held(world)
    world.pin(low, "low")
    jobs = queue(world, low, high, high, low)
    world.execute(
        "update priorityd.ordered_jobs set queued_at = queued_at - interval '20 hours'"
        " where repository_id = %s",
        low,
    )
    answer = release(world, limit=4)["jobs"]
    assert [(UUID(job["job_id"]), job["promoted"]) for job in answer] == [
        (jobs[0], True),
        (jobs[1], False),
        (jobs[3], True),
        (jobs[2], False),
    ]
    assert answer[0]["waited_seconds"] >= 72_000
    assert job_row(world, jobs[0])["payload"]["metadata"] == {"promoted": True}


# In flight.


def test_no_more_than_the_limit_of_a_type_is_in_flight(world: World) -> None:
    repository = world.tracked()
    jobs = queue(world, *[repository] * 3)
    others = queue(world, *[repository] * 3, job_type="reviews")
    assert set(released(world, 2)) == {*jobs[:2], *others[:2]}
    sent(world, *jobs[:2], *others[:2])
    assert released(world, 2) == []
    end(world, jobs[0], status="failed")
    world.execute("update background_jobs set status = 'processing' where id = %s", jobs[1])
    world.execute("delete from background_jobs where id = %s", others[0])
    assert set(released(world, 2)) == {jobs[2], others[2]}
    assert release(world, 2)["in_flight"] == {"medium": 4}


def test_what_was_released_and_not_sent_is_released_again_after_a_minute_and_is_not_lost(
    world: World,
) -> None:
    repository = world.tracked()
    (job,) = queue(world, repository)
    assert released(world) == [job]
    assert released(world, daemon=uuid4()) == []
    pass_time(world, "61 s")
    answer = release(world, daemon=uuid4())
    assert [(UUID(each["job_id"]), each["releases"]) for each in answer["jobs"]] == [(job, 2)]
    assert answer["lost"] == {}


def test_a_daemon_that_asks_again_has_not_got_the_answer(world: World) -> None:
    jobs = queue(world, *[world.tracked()] * 2)
    assert released(world) == jobs
    sent(world, jobs[0])
    assert released(world) == [jobs[1]]


def test_a_job_that_nobody_reports_on_is_lost_after_its_lease_and_holds_nobody_up(world: World) -> None:
    high = held(world)
    (lost,) = queue(world, high)
    assert released(world, p_lease_seconds=3600.0) == [lost]
    world.call("mark_jobs_sent", [lost], 3600.0)
    (later,) = queue(world, high)
    pass_time(world, "61 s")
    assert released(world, 1) == []
    pass_time(world, "1 h")
    answer = release(world, 1)
    assert [(UUID(job["job_id"]), job["losses"]) for job in answer["jobs"]] == [(lost, 1), (later, 0)]
    assert (answer["lost"], answer["lost_now"], answer["in_flight"]) == ({"high": 1}, 1, {"high": 1})
    world.call("mark_jobs_sent", [lost, later], 3600.0)
    end(world, lost, later)
    answer = release(world, 1)
    assert (answer["lost_now"], answer["in_flight"]) == (0, {})


def test_only_a_tenth_as_many_lost_jobs_are_out_as_others(world: World) -> None:
    repository = world.tracked()
    lost = queue(world, *[repository] * 25)
    assert released(world, 25) == lost
    sent(world, *lost)
    pass_time(world, "1 h")
    others = queue(world, *[repository] * 30)
    out = released(world, 25)
    assert (out[:2], out[2:]) == (lost[:2], others[:25])
    sent(world, *out)
    assert released(world, 25) == []


def test_jobs_of_which_nothing_is_heard_for_ten_seconds_hold_nobody_up(world: World) -> None:
    """However long their lease is; but no more than twice as many are out."""
    repository = world.tracked()
    silent = queue(world, *[repository] * 3)
    assert released(world, 3) == silent
    sent(world, *silent)
    others = queue(world, *[repository] * 9)
    assert released(world, 3) == []
    pass_silent_time(world, "11 s")
    assert released(world, 3) == others[:3]
    sent(world, *others[:3])
    assert released(world, 3) == []
    pass_silent_time(world, "11 s")
    assert released(world, 3) == [], "as many as there are places"
    end(world, silent[0])
    assert released(world, 3) == others[3:4]
    sent(world, others[3])
    world.execute("update background_jobs set status = 'processing' where id = %s", silent[1])
    end(world, others[0], others[3])
    assert len(released(world, 3)) == 2, "two others are silent, and one is at work"
    assert world.value(OUT_NOW) == 6


def test_a_job_at_work_holds_its_place_however_long_it_takes(world: World) -> None:
    repository = world.tracked()
    jobs = queue(world, *[repository] * 2)
    assert released(world, 1) == jobs[:1]
    sent(world, jobs[0])
    world.execute("update background_jobs set status = 'processing' where id = %s", jobs[0])
    pass_silent_time(world, "59 min")
    assert released(world, 1) == []


def test_what_is_lost_too_often_has_failed(world: World) -> None:
    (job,) = queue(world, world.tracked())
    for expected in ([job], [job], [job], []):
        answer = release(world, p_most_leases=3)
        assert [UUID(each["job_id"]) for each in answer["jobs"]] == expected
        sent(world, *expected)
        pass_time(world, "1 h")
    assert answer["given_up"] == [str(job)]
    row = job_row(world, job)
    assert (row["status"], row["error"]) == ("failed", "nobody reported on it within 3 leases")
    assert world.call("count_ordered_jobs")["jobs"] == []


def test_a_lost_job_that_could_not_be_sent_stays_lost(world: World) -> None:
    (job,) = queue(world, world.tracked())
    assert released(world) == [job]
    sent(world, job)
    pass_time(world, "1 h")
    for _ in range(2):
        (again,) = release(world)["jobs"]
        assert again["losses"] == 1
        assert world.call("return_unsent_jobs", DAEMON, [job]) == {"returned": 1}
    (listed,) = world.call("list_ordered_jobs")["jobs"]
    assert (listed["state"], listed["position"]) == ("lost", None)


def test_of_a_job_that_is_sent_again_the_first_event_is_remembered(world: World) -> None:
    (job,) = queue(world, world.tracked())
    assert released(world) == [job]
    world.call("mark_jobs_sent", [job], 3600.0, ["01FIRST"])
    pass_time(world, "1 h")
    (again,) = release(world)["jobs"]
    assert again["event_id"] == "01FIRST"
    world.call("mark_jobs_sent", [job], 3600.0, ["01SECOND"])
    pass_time(world, "1 h")
    (again,) = release(world)["jobs"]
    assert again["event_id"] == "01FIRST"


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_lost_job_ends_as_inngest_says(world: World, status: str) -> None:
    (job,) = queue(world, world.tracked())
    assert released(world) == [job]
    sent(world, job)
    pass_time(world, "1 h")
    assert released(world) == [job]
    assert world.call("settle_lost_jobs", [job], [status]) == {"refused": []}
    assert job_row(world, job)["status"] == status
    assert world.call("list_ordered_jobs")["found"] == 0


def test_a_lost_job_that_inngest_runs_is_in_flight_again(world: World) -> None:
    repository = world.tracked()
    (job,) = queue(world, repository)
    assert released(world) == [job]
    sent(world, job)
    pass_time(world, "1 h")
    assert released(world) == [job]
    world.call("settle_lost_jobs", [job], ["running"])
    queue(world, repository)
    answer = release(world, 1)
    assert (answer["jobs"], answer["lost_now"], answer["in_flight"]) == ([], 0, {"medium": 1})


def test_what_could_not_be_sent_waits_at_its_old_place(world: World) -> None:
    jobs = queue(world, *[world.tracked()] * 3)
    assert released(world, 2) == jobs[:2]
    sent(world, jobs[1])
    assert world.call("return_unsent_jobs", uuid4(), [jobs[0]]) == {"returned": 0}
    assert world.call("return_unsent_jobs", DAEMON, jobs) == {"returned": 1}
    assert released(world, daemon=uuid4()) == [jobs[0], jobs[2]]


def test_a_job_at_work_that_came_back_as_unsent_takes_its_place_without_being_sent_again(
    world: World,
) -> None:
    """Its event had been accepted, and only the answer was lost."""
    jobs = queue(world, *[world.tracked()] * 2)
    assert released(world, 1) == jobs[:1]
    world.call("return_unsent_jobs", DAEMON, jobs[:1])
    world.execute("update background_jobs set status = 'processing' where id = %s", jobs[0])
    answer = release(world, 1)
    assert (answer["jobs"], answer["in_flight"]) == ([], {"medium": 1})
    end(world, jobs[0])
    assert released(world, 1) == jobs[1:]


def test_a_refused_job_fails_with_its_reason(world: World) -> None:
    (job,) = queue(world, world.tracked())
    assert released(world) == [job]
    assert world.call("fail_refused_jobs", [job], ["too large"]) == {"failed": 1, "refused": []}
    row = job_row(world, job)
    assert (row["status"], row["error"]) == ("failed", "too large")
    assert row["failed_at"]
    assert release(world)["in_flight"] == {}


def test_many_cancelled_jobs_do_not_keep_a_release(world: World) -> None:
    repository = world.tracked()
    jobs = queue(world, *[repository] * 2500)
    end(world, *jobs[:-1], status="cancelled")
    answers = [release(world)]
    while answers[-1]["more"]:
        answers.append(release(world))
    assert len(answers) == 3
    assert [UUID(job["job_id"]) for job in answers[-1]["jobs"]] == [jobs[-1]]


def test_nothing_is_released_before_every_hint_is_followed(world: World) -> None:
    """One of them may tell of the first job of all."""
    world.execute(
        """insert into priorityd.job_hints (repository_id)
           select gen_random_uuid() from generate_series(1, 10001)"""
    )
    (job,) = queue(world, held(world))
    assert (release(world)["more"], released(world)) == (True, [job])


# Looking and cancelling.


def test_positions_are_those_of_the_releases_that_follow(world: World) -> None:
    workspaces = [world.workspace() for _ in range(3)]
    repositories = [held(world, workspaces[number % 3]) for number in range(7)]
    repositories += [world.tracked() for _ in range(4)]
    world.pin(repositories[8], "low")
    queue(world, *repositories, *repositories[::2], *repositories[:2])
    out = released(world, limit=3)
    sent(world, *out)
    answer = world.call("list_ordered_jobs")
    listed = [UUID(job["job_id"]) for job in answer["jobs"]]
    assert set(listed[:3]) == set(out)
    assert answer["found"] == len(listed) == 19
    waiting = answer["jobs"][3:]
    assert [job["position"] for job in waiting] == list(range(1, 17))
    (one,) = world.call("list_ordered_jobs", None, repositories[9])["jobs"]
    assert one in waiting
    assert released(world) == listed[3:]


def test_cancelling_reaches_what_waits_and_tells_of_what_is_out(world: World) -> None:
    repository = world.tracked()
    jobs = queue(world, *[repository] * 3)
    (other,) = queue(world, repository, job_type="reviews")
    assert jobs[0] in released(world, 1, 1) or released(world, 1)
    world.call("mark_jobs_sent", [*jobs, other])
    answer = world.call("cancel_ordered_jobs", p_repository_id=repository, p_job_type="recent-prs")
    assert answer == {"cancelled": 2, "in_flight": 1, "locked": 0, "refused": []}
    assert [job_row(world, job)["status"] for job in jobs] == ["queued", "cancelled", "cancelled"]
    end(world, jobs[0], other)
    assert released(world) == []
    assert world.call("count_ordered_jobs")["jobs"] == []


def test_counts_are_by_type_and_current_priority(world: World) -> None:
    repository, high = world.tracked(), held(world)
    queue(world, repository, repository, high, high)
    release(world, 1)
    counted = world.call("count_ordered_jobs")["jobs"]
    assert [(each["priority"], each["waiting"], each["in_flight"]) for each in counted] == [
        ("high", 1, 1),
        ("medium", 2, 0),
    ]


def waiting_by_priority(world: World) -> tuple[Json, Json]:
    """What waits, as counted and as listed."""
    counted = {each["priority"]: each["waiting"] for each in world.call("count_ordered_jobs")["jobs"]}
    listed = Counter(each["priority"] for each in world.call("list_ordered_jobs")["jobs"])
    return {priority: number for priority, number in counted.items() if number}, dict(listed)


def test_counts_and_lists_agree_though_nobody_releases(world: World) -> None:
    repositories = [held(world), world.tracked(), world.tracked()]
    queue(world, *repositories, *repositories)
    assert waiting_by_priority(world) == ({"high": 2, "medium": 4},) * 2
    released(world, 1, 1)
    world.pin(repositories[1], "low")
    assert waiting_by_priority(world)[0] == {"high": 1, "medium": 2, "low": 2}
    assert waiting_by_priority(world)[1] == {"high": 2, "medium": 2, "low": 2}, "one is in flight"


def test_what_somebody_began_out_of_its_turn_neither_waits_nor_can_be_cancelled(world: World) -> None:
    begun, ended, waiting = queue(world, *[world.tracked() for _ in range(3)])
    end(world, begun, status="processing")
    end(world, ended)
    assert waiting_by_priority(world) == ({"medium": 1},) * 2
    answer = world.call("cancel_ordered_jobs", [begun, ended, waiting])
    assert (answer["cancelled"], answer["in_flight"]) == (1, 1)
    assert [job_row(world, job)["status"] for job in (begun, ended, waiting)] == [
        "processing",
        "completed",
        "cancelled",
    ]


def test_what_could_not_be_sent_waits_with_the_priority_that_it_has_now(world: World) -> None:
    repository = world.tracked()
    (job,) = queue(world, repository)
    assert released(world) == [job]
    world.call("return_unsent_jobs", DAEMON, [job])
    world.pin(repository, "low")
    assert waiting_by_priority(world) == ({"low": 1},) * 2


def test_positions_are_those_of_the_first_release_too(world: World) -> None:
    workspaces = [world.workspace() for _ in range(3)]
    repositories = [world.tracked()] + [held(world, workspaces[number % 3]) for number in range(7)]
    queue(world, *repositories, *repositories[1:3])
    listed = [UUID(job["job_id"]) for job in world.call("list_ordered_jobs")["jobs"]]
    assert released(world) == listed


def test_a_list_names_the_repositories(world: World) -> None:
    repository = world.tracked()
    world.execute("update repositories set owner = 'acme', name = 'web' where id = %s", repository)
    queue(world, repository)
    assert [job["name"] for job in world.call("list_ordered_jobs")["jobs"]] == ["acme/web"]


def test_it_is_told_whether_anybody_asks_for_jobs(world: World) -> None:
    def asked() -> list[float | None]:
        return [world.call(name)["asked_seconds"] for name in ("list_ordered_jobs", "count_ordered_jobs")]

    assert asked() == [None, None]
    release(world)
    assert all(seconds is not None and seconds < 15 for seconds in asked())
    pass_time_since_asking = (
        "update priorityd.release_state set released_until = released_until - interval '1 h'"
    )
    world.execute(pass_time_since_asking)
    assert all(seconds is not None and seconds >= 3600 for seconds in asked())
    release(world)
    assert all(seconds is not None and seconds < 60 for seconds in asked()), "though nothing waits"


def test_of_two_rows_of_a_repository_the_same_counts_for_queueing_and_for_the_order(world: World) -> None:
    repository = world.tracked()
    world.execute("alter table tracked_repositories drop constraint tracked_repositories_repository_id_key")
    other = world.track(repository, id=UUID(int=0))
    world.execute("update tracked_repositories set priority = 'low' where id = %s", other)
    answer = world.call("queue_repository_jobs", json.dumps([{"repository_id": str(repository)}]), "reviews")
    assert [job["priority"] for job in answer["jobs"]] == ["medium"]
    assert waiting_by_priority(world) == ({"medium": 1},) * 2
    assert len(released(world)) == 1


# The application's table, as it may be.

TABLES = {
    "absent": "select",
    "enum and json": """
        create type job_status as enum ('queued', 'processing', 'completed', 'failed', 'cancelled');
        create table background_jobs (
            id uuid primary key default gen_random_uuid(), type text not null, payload json,
            status job_status not null default 'queued', created_at timestamptz default now(),
            started_at timestamptz, completed_at timestamptz, failed_at timestamptz, repository_id uuid
        )""",
    "an end needs a start, and triggers look other tables up by names without a schema": """
        create table background_jobs (
            id uuid primary key default gen_random_uuid(), type text not null, payload jsonb,
            status text not null default 'queued', created_at timestamptz default now(),
            started_at timestamptz, completed_at timestamptz, failed_at timestamptz, repository_id uuid,
            check ((completed_at is null and failed_at is null) or started_at is not null),
            check ((status in ('completed', 'failed', 'cancelled')) = (completed_at is not null))
        );
        create table audit_log (job_id uuid);
        create function log_it() returns trigger language plpgsql as $$
        begin
            insert into audit_log select new.id from repositories r where r.id = new.repository_id;
            return new;
        end $$;
        create trigger log_it before insert or update on background_jobs
        for each row execute function log_it()""",
    "partitioned by time": """
        create table background_jobs (
            id uuid default gen_random_uuid(), type text, payload jsonb, status text default 'queued',
            created_at timestamptz default now(), started_at timestamptz, completed_at timestamptz,
            failed_at timestamptz, repository_id uuid, error text, primary key (id, created_at)
        ) partition by range (created_at);
        create table jobs_default partition of background_jobs default""",
    "the key of a repository is a foreign one": """
        create table background_jobs (
            id uuid primary key, type text, payload jsonb, status varchar(20) default 'queued',
            created_at timestamptz, started_at timestamptz, completed_at timestamptz, failed_at timestamptz,
            repository_id uuid references repositories on delete cascade, error varchar(500), priority integer
        )""",
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_works_on_the_table_as_it_is_found(empty_database: Database, table: str) -> None:
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    world.execute(table)
    apply_migrations(world.connection)
    high = held(world)
    jobs = queue(world, world.tracked(), high, high, data={"days": 30})
    assert released(world, 2) == jobs[1:]
    assert job_row(world, jobs[1])["payload"]["days"] == 30
    world.call("fail_refused_jobs", [jobs[1]], ["too large"])
    sent(world, jobs[2])
    assert world.call("cancel_ordered_jobs", [jobs[0]])["cancelled"] == 1
    world.execute(
        """update background_jobs set status = 'completed', started_at = now(), completed_at = now()
           where id = %s""",
        jobs[2],
    )
    assert released(world) == []
    assert [job_row(world, job)["status"] for job in jobs] == ["cancelled", "failed", "completed"]
    assert world.call("list_ordered_jobs")["found"] == 0


REFUSE = """
    create function refuse() returns trigger language plpgsql as $$
    begin
        if new.payload ->> 'refuse' = tg_op || coalesce(new.status, '') then
            raise exception 'not this one' using errcode = '{sqlstate}';
        end if;
        return new;
    end $$;
    create trigger refuse before insert or update on background_jobs for each row execute function refuse()
"""


@pytest.mark.parametrize("sqlstate", ["23514", "P0001", "P0004", "42501", "40001", "22023"])
def test_a_job_that_the_application_refuses_is_refused_alone(world: World, sqlstate: str) -> None:
    world.execute(REFUSE.format(sqlstate=sqlstate))
    repositories = [world.tracked() for _ in range(5)]
    jobs = [
        {"repository_id": str(each), "data": {"refuse": what}}
        for each, what in zip(
            repositories, ["", "INSERTqueued", "UPDATEqueued", "UPDATEcancelled", ""], strict=True
        )
    ]
    answer = world.call("queue_repository_jobs", json.dumps(jobs), "reviews")
    why = f"not this one ({sqlstate})"
    assert [(each["position"], each["reason"]) for each in answer["refused"]] == [(2, why)]
    ids = [UUID(each["job_id"]) for each in answer["jobs"]]

    answer = release(world, limit=3)
    assert [UUID(each["job_id"]) for each in answer["jobs"]] == [ids[0], ids[2]]
    assert [(UUID(each["job_id"]), each["reason"]) for each in answer["refused"]] == [(ids[1], why)]
    assert world.call("return_unsent_jobs", DAEMON, ids) == {"returned": 2}

    answer = world.call("cancel_ordered_jobs", ids)
    assert (answer["cancelled"], answer["refused"]) == (3, [{"job_id": str(ids[2]), "reason": why}])
    assert job_row(world, ids[2])["status"] == "queued"


@pytest.mark.parametrize("body", ["return null;", "new.status := old.status;", "new := old;"])
def test_a_job_that_silently_stays_as_it_was_is_refused_and_not_forgotten(world: World, body: str) -> None:
    world.execute(
        f"""create function keep() returns trigger language plpgsql as $$ begin
                if old.payload ? 'keep' and new.status <> 'queued' then {body} end if; return new; end $$;
            create trigger keep before update on background_jobs for each row execute function keep()"""
    )
    (kept,) = queue(world, world.tracked(), data={"keep": True})
    (other,) = queue(world, world.tracked())
    answer = world.call("cancel_ordered_jobs", [kept, other])
    assert answer["cancelled"] == 1
    assert [(UUID(each["job_id"]), "a trigger or rule" in each["reason"]) for each in answer["refused"]] == [
        (kept, True)
    ]
    assert released(world) == [kept]


def test_a_job_that_is_silently_not_added_is_refused(world: World) -> None:
    world.execute(
        """create function drop_it() returns trigger language plpgsql as $$ begin
               if new.payload ? 'drop' then return null; end if; return new; end $$;
           create trigger drop_it before insert on background_jobs for each row execute function drop_it()"""
    )
    jobs = [{"repository_id": str(world.tracked()), "data": data} for data in ({}, {"drop": 1}, {})]
    answer = world.call("queue_repository_jobs", json.dumps(jobs), "reviews")
    assert (answer["queued"], len(answer["jobs"])) == (2, 2)
    (refused,) = answer["refused"]
    assert refused["position"] == 2
    assert "kept it from being queued" in refused["reason"]


@pytest.mark.parametrize(
    ("function", "more", "ended"),
    [
        ("cancel_ordered_jobs", (), {"cancelled": 1, "in_flight": 0, "locked": 1, "refused": []}),
        ("fail_refused_jobs", (["no", "no"],), {"failed": 1, "refused": []}),
        ("settle_lost_jobs", (["completed", "completed"],), {"refused": []}),
    ],
)
def test_ending_several_jobs_waits_for_none_while_it_holds_another(
    database: Database, world: World, function: str, more: tuple[list[str], ...], ended: Json
) -> None:
    """Whoever holds the one and waits for the other would end in a deadlock."""
    jobs = queue(world, world.tracked(), world.tracked())
    if more:
        assert released(world) == jobs
    worker = session(database, autocommit=False)
    worker.execute("select from background_jobs where id = %s for update", jobs[1])
    assert world.call(function, jobs, *more) == ended
    assert [job_row(world, job)["status"] == "queued" for job in jobs] == [False, True]
    worker.connection.rollback()
    assert world.call(function, jobs, *more)["refused"] == []
    assert job_row(world, jobs[1])["status"] != "queued"
    assert world.call("list_ordered_jobs")["found"] == 0


def test_an_application_may_queue_in_a_transaction_that_has_constraints_to_meet_yet(
    database: Database, world: World
) -> None:
    world.execute(
        """create table parents (id int primary key);
           create table children (id int references parents deferrable initially deferred)"""
    )
    application = session(database, autocommit=False)
    application.execute("insert into children values (1)")
    (job,) = queue(application, world.tracked())
    application.execute("insert into children values (2); insert into parents values (1), (2)")
    application.connection.commit()
    assert released(world) == [job]


def test_a_job_that_could_not_be_written_is_released_when_it_can_be(world: World) -> None:
    world.execute(REFUSE.format(sqlstate="P0001"))
    repository = world.tracked()
    (first,) = queue(world, repository, data={"refuse": "UPDATEqueued"})
    (second,) = queue(world, repository)
    assert released(world) == [second]
    world.execute("drop trigger refuse on background_jobs")
    assert released(world, daemon=uuid4()) == []
    world.execute("update priorityd.ordered_jobs set aside_until = aside_until - interval '61 s'")
    assert released(world, daemon=uuid4()) == [first]


def test_a_payload_that_can_not_be_read_ends_its_job_alone(empty_database: Database) -> None:
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    world.execute(TABLES["enum and json"])
    apply_migrations(world.connection)
    jobs = queue(world, *[world.tracked() for _ in range(3)])
    for job, payload in zip(jobs, ['{"a": "\\u0000"}', '{"a": 1e200000}'], strict=False):
        world.execute("update background_jobs set payload = %s where id = %s", payload, job)
    assert released(world) == jobs[2:]
    for job, status in zip(jobs, ["failed", "failed", "queued"], strict=True):
        assert world.value("select status from background_jobs where id = %s", job) == status


@pytest.mark.parametrize(
    ("words", "missing"), [("queued, completed, failed", None), ("queued, failed, done", "completed")]
)
def test_statuses_without_the_words_that_are_needed_are_told(
    empty_database: Database, words: str, missing: str | None
) -> None:
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    labels = ", ".join(f"'{word}'" for word in words.split(", "))
    world.execute(f"create type job_status as enum ({labels})")
    world.execute(TABLES["enum and json"].split(";", 1)[1])
    apply_migrations(world.connection)
    if missing:
        with pytest.raises(psycopg.Error, match=f"its status knows no {missing}"):
            queue(world, world.tracked())
        return
    jobs = queue(world, world.tracked(), world.tracked())
    assert released(world, limit=1) == jobs[:1]
    assert world.call("cancel_ordered_jobs", [jobs[1]])["cancelled"] == 1
    assert job_row(world, jobs[1])["status"] == "failed"


@pytest.mark.parametrize(
    "named",
    [
        {"p_in_flight": 10_001},
        {"p_promote_after_seconds": 1e9},
        {"p_lease_seconds": 700_000.0},
        {"p_lease_seconds": float("nan")},
        {"p_claim_seconds": 0.5},
        {"p_most_leases": 0},
    ],
)
def test_terms_out_of_bounds_are_refused(world: World, named: dict[str, Any]) -> None:
    with pytest.raises(psycopg.Error, match="p_most_leases between 1 and 1000") as refused:
        world.call("release_ordered_jobs", DAEMON, **({"p_in_flight": 1} | named))
    assert refused.value.sqlstate == "22023"


def test_a_table_with_jobs_in_it_outlives_the_undo_of_the_migration_that_made_it(
    empty_database: Database,
) -> None:
    world = session(empty_database)
    SCHEMAS["enum"].create(world.connection)
    apply_migrations(world.connection)
    queue(world, world.tracked())
    undo_migrations(world.connection)
    assert world.value("select status from background_jobs") == "queued"


# What goes on beside it.


def test_a_change_of_priority_waits_for_no_release_and_is_not_missed_by_the_next(
    database: Database, world: World
) -> None:
    repositories = [world.tracked() for _ in range(2)]
    jobs = queue(world, *repositories)
    releasing = session(database, autocommit=False)
    assert released(releasing, 1, 1) == [jobs[0]]
    (third,) = queue(world, world.tracked())
    world.add(repositories[1])
    Background(lambda: world.sync(repositories[1])).result()
    releasing.connection.rollback()
    assert released(world) == [jobs[1], jobs[0], third]


def test_the_check_finds_nothing_where_nothing_went_past_us(world: World) -> None:
    shared = held(world)
    queue(world, world.tracked(), held(world), shared, shared)
    release(world, 1, 1)
    assert world.call("check_job_lanes")["found"] == 0
    world.add(shared)
    assert world.call("check_job_lanes")["found"] == 1


def test_everything_at_once_ends_with_every_job_released_once(database: Database, world: World) -> None:
    """Nobody waits for others in a circle, and nothing fails or is lost."""
    workspace = world.workspace()
    repositories = [world.tracked() for _ in range(8)]
    rounds = 25
    stop = threading.Event()
    chance = random.Random(3)

    def queueing(seed: int) -> list[UUID]:
        mine, order = session(database), random.Random(seed)
        return [
            job for _ in range(rounds) for job in queue(mine, *order.sample(repositories, len(repositories)))
        ]

    def changing() -> None:
        mine = session(database)
        while not stop.is_set():
            some = chance.sample(repositories, 3)
            for repository in some:
                mine.execute("delete from workspace_repositories where repository_id = %s", repository)
            mine.add(some[0], workspace)
            mine.sync(*some)
            mine.call("check_job_lanes")

    def cancelling() -> int:
        mine, cancelled = session(database), 0
        while not stop.is_set():
            answer = mine.call("cancel_ordered_jobs", p_repository_id=chance.choice(repositories))
            cancelled += answer["cancelled"]
            time.sleep(0.05)  # leave some for the releases
        return cancelled

    def releasing() -> list[UUID]:
        mine, daemon, mine_released = session(database), uuid4(), []
        while True:
            ending = stop.is_set()
            answer = release(mine, 5, 3, daemon)
            jobs = [UUID(job["job_id"]) for job in answer["jobs"]]
            if ending and not jobs and not answer["busy"]:
                break
            assert mine.value(f"select count(*) from ({OUT}) o") <= 5
            if jobs and chance.random() < 0.3:
                mine.call("return_unsent_jobs", daemon, jobs)
                continue
            sent(mine, *jobs)
            end(mine, *jobs)
            mine_released += jobs
        return mine_released

    intake = [Background(lambda seed=seed: queueing(seed)) for seed in range(3)]
    others = [Background(changing), Background(cancelling)]
    releases = [Background(releasing) for _ in range(3)]
    queued = [job for each in intake for job in each.result()]
    stop.set()
    _, cancelled = (each.result() for each in others)
    out = [job for each in releases for job in each.result()]
    out += released(world, 10_000, 10_000)
    assert len(out) == len(set(out))
    assert len(out) + cancelled == len(queued) == 3 * rounds * len(repositories)


OUT = "select from priorityd.ordered_jobs where released_at is not null"


OUT_NOW = f"select count(*) from ({OUT}) o"


def pass_silent_time(world: World, interval: str) -> None:
    """Since jobs were sent, their leases being long."""
    world.execute("update priorityd.ordered_jobs set sent_at = sent_at - %s::interval", interval)


def pass_time(world: World, interval: str) -> None:
    world.execute("update priorityd.ordered_jobs set lease_until = lease_until - %s::interval", interval)
