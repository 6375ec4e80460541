"""Every overtaking is found, once, and nothing else is taken for one."""

from __future__ import annotations

import json
import random
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.job_table import Jobs, Reader, inversions
from tests.support.world import World

RANK = {"low": 1, "medium": 2, "high": 3}


def test_a_job_that_starts_before_an_earlier_one_of_higher_priority_is_an_inversion(
    world: World, jobs: Jobs
) -> None:
    waiting = jobs.add("high", created=90)
    overtaking = jobs.add("low", status="processing", created=80, started=50)
    found = inversions(world)
    assert found["count"] == 1
    (pair,) = found["sample"]
    assert (pair["job_id"], pair["waiting_job_id"]) == (str(overtaking), str(waiting))
    assert (pair["priority"], pair["waiting_priority"]) == ("low", "high")


@pytest.mark.parametrize(
    "waiting",
    [
        {"created": 80},
        {"created": 80, "started": 49, "status": "processing"},
        {"created": 80, "ended": 49, "status": "cancelled"},
    ],
    ids=["waits", "started a second later", "cancelled a second later"],
)
def test_one_of_the_same_batch_can_be_overtaken(world: World, jobs: Jobs, waiting: dict[str, Any]) -> None:
    with world.connection.transaction():  # times are to the microsecond
        jobs.add("high", **waiting)
        jobs.add("low", status="processing", created=80, started=50)
    assert inversions(world)["count"] == 1


@pytest.mark.parametrize(
    ("waiting", "starting"),
    [
        ({"priority": "high", "created": 70}, {"priority": "low"}),  # created later
        ({"priority": "high", "created": 90, "started": 60, "status": "processing"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "started": 50, "status": "processing"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "started": 49.1, "status": "processing"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "status": "processing"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "ended": 20, "status": "completed"}, {"priority": "low"}),
        ({"priority": "high", "created": 90, "ended": 20, "status": "failed"}, {"priority": "low"}),
        ({"priority": "low", "created": 90}, {"priority": "low"}),
        ({"priority": "low", "created": 90}, {"priority": "high"}),
        ({"priority": "high", "created": 90, "ended": 60, "status": "cancelled"}, {"priority": "low"}),
    ],
    ids=[
        "created later",
        "started before",
        "started together",
        "started less than a second later",
        "at work without a time",
        "completed without a start",
        "failed without a start",
        "same",
        "lower",
        "cancelled before",
    ],
)
def test_is_no_inversion(world: World, jobs: Jobs, waiting: dict[str, Any], starting: dict[str, Any]) -> None:
    jobs.add(**waiting)
    jobs.add(**starting, status="processing", created=80, started=50)
    assert inversions(world)["count"] == 0


def test_one_that_has_had_its_turn_was_not_overtaken(world: World, jobs: Jobs) -> None:
    job = jobs.add("high", status="failed", created=90, started=85, ended=60)
    jobs.add("low", status="processing", created=80, started=50)
    world.execute(
        """update background_jobs set status = 'processing', started_at = now() - interval '10 s'
           where id = %s""",
        job,
    )
    assert inversions(world)["count"] == 0


def test_a_priority_that_rose_while_a_job_waited_counts_from_then_on(world: World, jobs: Jobs) -> None:
    repository = world.tracked()
    jobs.add(repository=repository, created=90)
    jobs.add("medium", status="processing", created=80, started=50)
    world.add(repository)
    world.sync(repository)
    assert inversions(world)["count"] == 0
    jobs.add("medium", status="processing", created=0, started=0)
    assert inversions(world)["count"] == 1


def released_high_job(world: World) -> UUID:
    """An ordered job that was sent just now, and of which nothing has been heard."""
    repository = world.tracked()
    world.add(repository)
    world.sync(repository)
    world.call("queue_repository_jobs", json.dumps([{"repository_id": str(repository)}]), "reviews")
    ((job,),) = world.execute(
        "select job_id from priorityd.ordered_jobs where released_at is null"
    ).fetchall()
    world.call("release_ordered_jobs", uuid4(), 10)
    world.call("mark_jobs_sent", [job])
    return job


def test_a_released_job_waits_for_its_start_for_a_minute(world: World, jobs: Jobs) -> None:
    job = released_high_job(world)
    jobs.add("low", status="processing", created=0, started=0, job_type="reviews")
    (pair,) = inversions(world)["sample"]
    assert UUID(pair["waiting_job_id"]) == job
    world.execute("update priorityd.ordered_jobs set sent_at = sent_at - interval '61 s'")
    assert inversions(world)["count"] == 0, "it may be at work, or lost"


def test_a_job_of_which_nothing_is_heard_hides_none_that_waits(world: World, jobs: Jobs) -> None:
    released_high_job(world)
    world.execute("update priorityd.ordered_jobs set sent_at = sent_at - interval '61 s'")
    waiting = jobs.add("high", created=0, job_type="reviews")
    jobs.add("low", status="processing", created=0, started=0, job_type="reviews")
    (pair,) = inversions(world)["sample"]
    assert UUID(pair["waiting_job_id"]) == waiting


def test_starts_that_are_never_written_down_say_nothing(world: World) -> None:
    """Of an application that only says how its jobs ended."""
    high, low = world.tracked(), world.tracked()
    world.add(high)
    world.sync(high)
    reader = Reader(world).poll()
    for _ in range(3):
        jobs = [{"repository_id": str(each)} for each in (high, low)]
        world.call("queue_repository_jobs", json.dumps(jobs), "reviews")
        for job in reversed(world.call("release_ordered_jobs", uuid4(), 10)["jobs"]):
            world.call("mark_jobs_sent", [job["job_id"]])
            assert reader.poll().inversions == 0
            world.execute(
                "update background_jobs set status = 'completed', completed_at = now() where id = %s",
                job["job_id"],
            )
    assert reader.poll().inversions == 0
    assert len(reader.jobs) == 6


def test_a_start_at_no_time_that_there_is_stops_no_poll(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    world.execute(
        """insert into background_jobs (status, payload, created_at, started_at)
           select 'processing', '{"priority": 100}', now() - interval '90 s', t::timestamptz
           from unnest('{294276-12-31 23:59:59Z,infinity,-infinity,4714-11-24 00:00:00Z BC}'::text[]) t"""
    )
    jobs.add("low", status="processing", created=80, started=0)
    assert reader.poll().inversions == 1


def test_clocks_of_workers_that_differ_from_the_database_s_invert_nothing(world: World, jobs: Jobs) -> None:
    """Starts are compared with starts: by whatever clock, the first was the first."""
    for ahead in (-30, 0, 30):
        world.execute("delete from background_jobs")
        jobs.add("high", status="processing", created=90, started=60 - ahead)
        jobs.add("low", status="processing", created=80, started=50 - ahead)
        assert inversions(world)["count"] == 0
        jobs.add("low", status="processing", created=80, started=62 - ahead)
        assert inversions(world)["count"] == 1


def test_finds_exactly_what_comparing_all_pairs_finds(world: World, jobs: Jobs) -> None:
    chance = random.Random(7)
    with world.connection.transaction():  # many were created at the same time
        for _ in range(300):
            created = float(chance.randint(10, 200))
            status = chance.choice(["queued", "processing", "completed", "failed", "cancelled"])
            started = None if status in ("queued", "cancelled") else chance.uniform(5, created)
            ended = (
                chance.uniform(1, started or created)
                if status in ("completed", "failed", "cancelled")
                else None
            )
            jobs.add(
                chance.choice(["high", "medium", "low", None]),
                status=status,
                created=created,
                started=started,
                ended=ended,
            )
    by_hand = world.value(
        """with j as (
               select *, coalesce(array_position('{low,medium,high}', payload ->> 'priority'), 2) as rank,
                   case
                       when started_at is not null then started_at when status = 'queued' then 'infinity'
                       when status = 'cancelled' then completed_at
                   end as waited_until
               from background_jobs
           )
           select count(*) from j l
           where l.started_at > now() - interval '300 s' and exists (
               select from j h
               where h.rank > l.rank and h.created_at <= l.created_at
                   and h.waited_until >= l.started_at + interval '1 s'
           )"""
    )
    assert by_hand > 20
    found = inversions(world, 300)
    assert found["count"] == by_hand
    assert len(found["sample"]) == 5


def test_each_inversion_is_counted_once_over_polls_and_daemons(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    jobs.add("high", created=90)
    jobs.add("low", status="processing", created=80, started=0)
    assert reader.poll().inversions == 1
    assert reader.poll().inversions == 1
    jobs.add("medium", status="processing", created=70, started=0)
    other = Reader(world).poll()
    assert (reader.poll().inversions, other.inversions) == (1, 1)


def test_a_promoted_job_overtakes_nobody_and_a_type_is_overtaken_by_no_other(
    world: World, jobs: Jobs
) -> None:
    reader = Reader(world).poll()
    jobs.add("high", created=50, job_type="reviews")
    for fields in ({"promoted": True, "job_type": "reviews"}, {"job_type": "comments"}):
        jobs.add("low", status="completed", created=40, started=0, ended=0, **fields)
    assert reader.poll().inversions == 0
    inverted = jobs.add("low", status="completed", created=40, started=0, ended=0, job_type="reviews")
    reader.poll()
    assert reader.inversions == 1
    found = inversions(world, 60)
    assert [UUID(pair["job_id"]) for pair in found["sample"]] == [inverted]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("select", ("acme/web", "acme/api")),
        ("update repositories set owner = null where name = 'web'", ("old/web", "acme/api")),
        ("drop table repositories cascade", ("old/web", None)),
        (
            """update repositories set owner = null, name = null;
            alter table tracked_repositories drop column repository_name""",
            (None, None),
        ),
    ],
    ids=["repositories", "some by their rows", "no table repositories", "no names"],
)
def test_both_jobs_of_an_inversion_are_told_with_the_names_of_their_repositories(
    world: World, jobs: Jobs, change: str, names: tuple[str | None, str | None]
) -> None:
    web = world.tracked(organization_name="old", repository_name="web")
    api = world.tracked()
    for repository, name in ((web, "web"), (api, "api")):
        world.execute("update repositories set owner = 'acme', name = %s where id = %s", name, repository)
    waiting = jobs.add("high", created=90, repository=api)
    overtaking = jobs.add("low", status="processing", created=80, started=50, repository=web)
    world.connection.execute(change.encode())
    (pair,) = inversions(world)["sample"]
    pair.pop("started_at")
    assert pair == {
        "job_id": str(overtaking),
        "repository_id": str(web),
        "name": names[0],
        "priority": "low",
        "waiting_job_id": str(waiting),
        "waiting_repository_id": str(api),
        "waiting_name": names[1],
        "waiting_priority": "high",
    }


def test_jobs_of_no_repository_invert_as_well(world: World, jobs: Jobs) -> None:
    jobs.add("high", created=90)
    jobs.add("low", status="processing", created=80, started=50)
    (pair,) = inversions(world)["sample"]
    told = [pair[key] for key in ("repository_id", "name", "waiting_repository_id", "waiting_name")]
    assert told == [None] * 4
