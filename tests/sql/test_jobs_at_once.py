"""Ordered jobs while much goes on at the same time."""

from __future__ import annotations

import random
import threading
import time
from functools import partial
from uuid import UUID, uuid4

from tests.support.database import Database
from tests.support.effort import tries
from tests.support.ordered_calls import OUT, end, held, queue, release, released, sent
from tests.support.world import Background, World, session


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
    rounds = tries(24)
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

    intake = [Background(partial(queueing, seed)) for seed in range(3)]
    changes, cancels = Background(changing), Background(cancelling)
    releases = [Background(releasing) for _ in range(3)]
    queued = [job for each in intake for job in each.result()]
    stop.set()
    changes.result()
    cancelled = cancels.result()
    out = [job for each in releases for job in each.result()]
    out += released(world, 10_000, 10_000)
    assert len(out) == len(set(out))
    assert len(out) + cancelled == len(queued) == 3 * rounds * len(repositories)
