"""The order of jobs, one rule at a time; as a whole it is in test_release_order.py."""

from __future__ import annotations

from uuid import UUID

from tests.support.ordered_calls import end, held, job_row, queue, release, released
from tests.support.world import World


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
