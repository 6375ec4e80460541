"""Looking at ordered jobs, and cancelling them."""

from __future__ import annotations

import json
from collections import Counter
from uuid import UUID

from tests.support.ordered_calls import DAEMON, Json, end, held, job_row, queue, release, released, sent
from tests.support.world import World


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
