"""Ordered jobs in flight: how many, when they are lost, and what daemons and Inngest say of them."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from tests.support.ordered_calls import (
    DAEMON,
    OUT,
    end,
    held,
    job_row,
    pass_time,
    queue,
    release,
    released,
    sent,
)
from tests.support.world import World


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
    repository = world.tracked()
    world.execute("update repositories set owner = 'acme', name = 'web'")
    (job,) = queue(world, repository)
    for expected in ([job], [job], [job], []):
        answer = release(world, p_most_leases=3)
        assert [UUID(each["job_id"]) for each in answer["jobs"]] == expected
        sent(world, *expected)
        pass_time(world, "1 h")
    assert answer["given_up"] == [{"job_id": str(job), "repository_id": str(repository), "name": "acme/web"}]
    row = job_row(world, job)
    assert (row["status"], row["error"]) == ("failed", "no report came within 3 leases")
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


OUT_NOW = f"select count(*) from ({OUT}) o"


def pass_silent_time(world: World, interval: str) -> None:
    """Since jobs were sent, their leases being long."""
    world.execute("update priorityd.ordered_jobs set sent_at = sent_at - %s::interval", interval)
