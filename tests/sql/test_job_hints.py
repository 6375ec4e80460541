"""Hints at lanes: none while nobody releases, one for a type and repository, and nothing is lost."""

from __future__ import annotations

import json
import random
import threading
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.support.world import Background, World, session

if TYPE_CHECKING:
    from tests.support.database import Database

PAUSE = "update priorityd.release_state set released_until = now() - interval '1 s' where only_row"


def queue(world: World, *repositories: UUID) -> list[UUID]:
    jobs = [{"repository_id": str(each)} for each in repositories]
    answer = world.call("queue_repository_jobs", json.dumps(jobs), "reviews")
    assert answer["queued"] == len(jobs)
    return [UUID(job["job_id"]) for job in answer["jobs"]]


def released(world: World, limit: int = 100) -> list[UUID]:
    """What the next release sends."""
    answer = world.call("release_ordered_jobs", uuid4(), 10_000, limit)
    jobs = [UUID(job["job_id"]) for job in answer["jobs"]]
    world.call("mark_jobs_sent", jobs)
    return jobs


def hints(world: World) -> int:
    return world.value("select count(*) from priorityd.job_hints")


def join(world: World, repository: UUID) -> None:
    world.add(repository)
    world.sync(repository)


def misplaced(world: World) -> int:
    return world.value("select misplaced from priorityd.hint_at_misplaced_lanes(10000)")


# While nobody releases.


@pytest.mark.parametrize("until", ["now() - interval '1 s'", "now() + interval '1 day'"])
def test_where_nobody_releases_any_more_no_hint_is_left(world: World, until: str) -> None:
    """A time further ahead than any release says is of a clock that was set back."""
    repository = world.tracked()
    queue(world, repository)
    assert hints(world) == 0, "nobody ever did"
    released(world)
    join(world, world.tracked())
    assert hints(world) == 1
    world.execute(f"update priorityd.release_state set released_until = {until} where only_row")
    released(world)
    world.execute(f"update priorityd.release_state set released_until = {until} where only_row")
    assert hints(world) == 0
    for _ in range(3):
        (job, _) = queue(world, repository, world.tracked())
        world.call("cancel_ordered_jobs", [job])
        join(world, world.tracked())
        world.call("check_job_lanes")
    assert hints(world) == 0


def test_whoever_releases_says_so_in_time(world: World) -> None:
    """Before it is over, and not with each release: that would be one more row that is over."""
    until = "select released_until from priorityd.release_state"
    released(world)
    said = world.value(until)
    released(world)
    assert world.value(until) == said
    world.execute(
        "update priorityd.release_state set released_until = now() + interval '2 min' where only_row"
    )
    released(world)
    assert world.value(until) >= said


@pytest.mark.parametrize("until", ["now() - interval '1 s'", "now() + interval '1 day'"])
def test_what_happened_in_a_pause_counts_when_it_is_over(world: World, until: str) -> None:
    """The clock may have been set back in it."""
    first, upgraded, cancelled, shared = (world.tracked() for _ in range(4))
    busy = world.add(shared)
    world.sync(shared)
    before = queue(world, first, upgraded, cancelled, shared, cancelled)
    assert released(world, 1) == [before[3]]
    world.execute(f"update priorityd.release_state set released_until = {until} where only_row")
    (again,) = queue(world, shared)
    world.add(upgraded, busy)
    world.sync(upgraded)
    world.call("cancel_ordered_jobs", [before[2]])
    assert hints(world) == 0
    assert released(world) == [before[1], again, before[0], before[4]]


@pytest.mark.parametrize("isolation", list(psycopg.IsolationLevel))
def test_who_began_in_a_pause_and_ends_after_it_is_found_when_he_has(
    database: Database, world: World, isolation: psycopg.IsolationLevel
) -> None:
    """However long that takes, and in whatever order several end."""
    low, high = world.tracked(), world.tracked()
    join(world, high)
    slow = [session(database, autocommit=False) for _ in range(2)]
    jobs = []
    for each in slow:
        each.connection.isolation_level = isolation
        jobs += queue(each, high)
    (seen,) = queue(world, low)
    assert released(world) == [seen]
    assert released(world) == []
    (later,) = queue(world, low)
    slow[1].connection.commit()
    assert released(world) == [jobs[1], later]
    for _ in range(3):
        assert released(world) == []
    slow[0].connection.commit()
    assert released(world) == jobs[:1]
    assert world.value("select unhinted from priorityd.release_state") == []


def test_a_snapshot_from_before_the_end_of_the_pause_keeps_nothing_back(
    database: Database, world: World
) -> None:
    """It can't see that somebody releases by now."""
    repository = world.tracked()
    old = session(database, autocommit=False)
    old.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    old.execute("select from background_jobs")
    for _ in range(3):
        assert released(world) == []
    jobs = queue(old, repository)
    old.connection.commit()
    assert released(world) == jobs


def test_a_release_that_is_not_committed_ends_no_pause(database: Database, world: World) -> None:
    (job,) = queue(world, world.tracked())
    dying = session(database, autocommit=False)
    assert released(dying) == [job]
    (later,) = queue(world, world.tracked())
    dying.connection.rollback()
    assert set(released(world)) == {job, later}


def test_more_than_a_release_takes_up_is_looked_at_again(world: World) -> None:
    """Nothing is released before all of it is in its place."""
    repositories = [world.tracked() for _ in range(3)]
    jobs = queue(world, *repositories)
    assert world.value("select priorityd.renew_releases(q, 1) from priorityd.release_state q") is True
    assert hints(world) == 1
    assert released(world) == jobs


# While somebody does.


def test_what_a_hint_says_already_is_not_said_again(world: World) -> None:
    released(world)
    repository, other = world.tracked(), world.tracked()
    for _ in range(5):
        queue(world, repository, other, repository)
    assert hints(world) == 2
    jobs = json.dumps([{"repository_id": str(repository)}] * 2)
    for _ in range(5):
        world.call("queue_repository_jobs", jobs, "comments")
    assert hints(world) == 3, "of another type"
    for workspace in [world.add(repository), world.add(other)]:
        world.sync(repository, other)
        world.remove(other, workspace)
        world.sync(repository, other)
        queue(world, other)
    assert hints(world) == 5, "of all types, and these need no others"
    assert len(released(world)) == 27
    assert hints(world) == 0


def test_at_most_those_who_are_at_work_at_once_say_it_again(database: Database, world: World) -> None:
    released(world)
    repository = world.tracked()
    others = [session(database, autocommit=False) for _ in range(6)]
    jobs = [queue(each, repository)[0] for each in others for _ in range(3)]
    for each in others:
        each.connection.commit()
    assert hints(world) == len(others)
    jobs += queue(world, repository)
    assert hints(world) == len(others)
    assert sorted(released(world)) == sorted(jobs)


def test_a_hint_that_somebody_holds_is_followed_at_once_and_again(database: Database, world: World) -> None:
    released(world)
    first, second = world.tracked(), world.tracked()
    jobs = queue(world, first, second)
    holder = session(database, autocommit=False)
    (late,) = queue(holder, first)
    assert hints(holder) == 2
    assert released(world) == jobs
    assert hints(world) == 1
    more = queue(world, first)
    assert released(world) == more
    holder.connection.commit()
    assert released(world) == [late]
    assert hints(world) == 0


def test_whoever_gives_up_holding_a_hint_leaves_it_to_be_followed(database: Database, world: World) -> None:
    released(world)
    repository = world.tracked()
    jobs = queue(world, repository)
    holder = session(database, autocommit=False)
    queue(holder, repository)
    assert released(world) == jobs
    holder.connection.rollback()
    assert released(world) == []
    assert hints(world) == 0


def test_a_hint_that_is_being_taken_away_is_not_relied_on(database: Database, world: World) -> None:
    released(world)
    repository = world.tracked()
    jobs = queue(world, repository)
    releasing = session(database, autocommit=False)
    assert released(releasing) == jobs
    later = queue(world, repository)  # would fail after its lock_timeout
    releasing.connection.commit()
    assert released(world) == later


def test_several_rows_of_a_repository_lead_to_one_place(world: World) -> None:
    """The one that means most decides, for lanes as for releases."""
    world.execute("alter table tracked_repositories drop constraint tracked_repositories_repository_id_key")
    repository = world.repository()
    for priority in ("low", "high", "medium"):
        world.track(repository, priority=priority, manual_priority=priority)
    jobs = queue(world, world.tracked(), repository)
    assert released(world) == jobs[::-1]
    assert misplaced(world) == 0


def test_nothing_is_lost_however_releases_pause_and_others_end(database: Database, world: World) -> None:
    """Nobody looks for misplaced lanes but the releases themselves."""
    repositories = [world.tracked() for _ in range(6)]
    stop = threading.Event()
    levels = [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ]

    def writing(seed: int) -> list[UUID]:
        chance, kept = random.Random(seed), []
        mine = session(database, autocommit=False)
        mine.connection.isolation_level = levels[seed % 2]
        for _ in range(40):
            jobs = []
            for _ in range(chance.randint(1, 4)):
                jobs += queue(mine, chance.choice(repositories))
            if chance.random() < 0.3:
                mine.value("select pg_sleep(%s)", chance.random() / 20)  # while others go on
            if chance.random() < 0.2:
                mine.connection.rollback()
            else:
                mine.connection.commit()
                kept += jobs
        return kept

    def changing() -> None:
        chance, mine = random.Random(9), session(database)
        while not stop.is_set():
            repository = chance.choice(repositories)
            # From one workspace straight to another there is nothing to write, and so no hint.
            mine.execute("delete from workspace_repositories where repository_id = %s", repository)
            mine.sync(repository)
            if chance.random() < 0.5:
                mine.add(repository)
                mine.sync(repository)

    def releasing(seed: int) -> list[UUID]:
        chance, out = random.Random(seed), []
        mine = session(database, autocommit=False)
        while not stop.is_set():
            jobs = released(mine, 5)
            if chance.random() < 0.1:
                mine.execute(PAUSE)
            if chance.random() < 0.2:
                mine.connection.rollback()
                continue
            mine.connection.commit()
            out += jobs
        return out

    writers = [Background(partial(writing, seed)) for seed in range(4)]
    others = [Background(partial(releasing, seed)) for seed in (20, 21)]
    changes = Background(changing)
    queued = [job for each in writers for job in each.result()]
    stop.set()
    changes.result()
    out = [job for each in others for job in each.result()]
    out += released(world, 1)
    assert misplaced(world) == 0
    out += released(world, 10_000)
    assert sorted(out) == sorted(queued)
    assert released(world) == []
    assert hints(world) == 0
