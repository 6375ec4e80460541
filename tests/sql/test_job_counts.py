"""What is counted of the application's jobs, with which times and priorities, however the table is filled."""

from __future__ import annotations

from typing import Any

import pytest

from priorityd.core.priorities import PRIORITIES, SCORES
from priorityd.daemon.sandbox.migrate import apply_migrations
from tests.support.job_table import Jobs, Reader, inversions
from tests.support.world import World


def test_what_ended_before_anybody_looked_is_history(world: World, jobs: Jobs) -> None:
    jobs.add("high", status="completed", created=3, started=2, ended=1)
    assert Reader(world).poll().jobs == []


def test_each_job_is_counted_once_with_its_times(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    jobs.end("high")
    jobs.end("low", "failed")
    jobs.add("medium", status="cancelled", created=9, ended=0)
    reader.poll()
    reader.poll()
    assert sorted(reader.jobs) == [("high", "completed"), ("low", "failed"), ("medium", "cancelled")]


def test_the_times_are_wait_run_and_total(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    jobs.end("high")
    (group,) = reader.ask()["finished"]
    assert (group["wait_seconds"], group["run_seconds"], group["total_seconds"]) == ([10], [20], [30])


def test_pages_divide_jobs_without_losing_or_repeating_any(world: World, jobs: Jobs) -> None:
    reader = Reader(world, limit=7).poll()
    with world.connection.transaction():  # all with the same time, to the microsecond
        for _ in range(40):
            jobs.end("medium")
    reader.poll()
    assert len(reader.jobs) == 40
    assert reader.poll().jobs == [("medium", "completed")] * 40


@pytest.mark.parametrize("priority", PRIORITIES)
def test_a_job_has_the_priority_it_was_queued_with_else_its_repository_s(
    world: World, jobs: Jobs, priority: str
) -> None:
    repository = world.tracked(priority=priority)
    other = next(each for each in PRIORITIES if each != priority)
    for queued_with, expected in (
        (other, other),
        (SCORES[other], other),
        (float(SCORES[other]), other),
        (str(SCORES[other]), other),
        (None, priority),
        ("urgent", priority),
        (-1, priority),
    ):
        jobs.add(queued_with, repository=repository)
        (waiting,) = Reader(world).poll().queued
        assert (waiting["priority"], waiting["jobs"]) == (expected, 1), queued_with
        world.execute("delete from background_jobs")


def test_a_job_of_nobody_is_medium(world: World, jobs: Jobs) -> None:
    jobs.add()
    jobs.add(repository=world.repository())
    (waiting,) = Reader(world).poll().queued
    assert (waiting["priority"], waiting["jobs"]) == ("medium", 2)
    assert 100 <= waiting["oldest_seconds"] < 200


def test_payloads_of_any_shape_are_read(world: World, jobs: Jobs) -> None:
    for payload in ("null", "[]", '"x"', '{"priority": {}}', '{"priority": []}', '{"priority": 1e400}'):
        world.execute("insert into background_jobs (payload) values (%s)", payload)
    (waiting,) = Reader(world).poll().queued
    assert (waiting["priority"], waiting["jobs"]) == ("medium", 6)


NONSENSE = [
    '{"priority": "1.' + "0" * 16_384 + '"}',
    '{"priority": 1.' + "0" * 16_380 + "}",
    '{"priority": "' + "9" * 1_000_000 + '"}',
]
NOT_JSONB = [r'{"priority": "\u0000"}', '{"priority": 1e200000}', "[" * 3_000 + "]" * 3_000]


@pytest.mark.parametrize("type_", ["json", "jsonb"])
def test_the_nonsense_of_a_job_is_that_job_s(world: World, jobs: Jobs, type_: str) -> None:
    world.execute(
        f"""alter table background_jobs alter column payload drop default,
            alter column payload type {type_} using payload::{type_}"""
    )
    apply_migrations(world.connection)
    reader = Reader(world).poll()
    payloads = NONSENSE + (NOT_JSONB if type_ == "json" else [])
    for payload in payloads:
        world.execute(
            "insert into background_jobs (payload, created_at) values (%s, now() - interval '90 s')", payload
        )
        world.execute(
            """insert into background_jobs (payload, status, created_at, started_at, completed_at)
               values (%s, 'completed', now() - interval '30 s', now() - interval '20 s', now())""",
            payload,
        )
    jobs.add("high", status="completed", created=100, started=90, ended=0)
    reader.poll()
    assert {each["priority"]: each["jobs"] for each in reader.queued} == {"medium": len(payloads)}
    assert sorted(reader.jobs) == [("high", "completed"), *[("medium", "completed")] * len(payloads)]


def test_times_without_end_are_told_of_by_nobody(world: World) -> None:
    reader = Reader(world).poll()
    world.execute(
        """insert into background_jobs (status, created_at, started_at, completed_at)
           values ('completed', '-infinity', '-infinity', now()), ('queued', '-infinity', null, null),
               ('queued', 'infinity', null, null), ('completed', now(), 'infinity', now())"""
    )
    (group,) = reader.ask()["finished"]
    assert (group["jobs"], group["wait_seconds"]) == (2, [])
    (waiting,) = reader.poll().queued
    assert (waiting["jobs"], waiting["oldest_seconds"]) == (2, 0)


def test_each_repository_is_looked_up_once_a_poll(world: World) -> None:
    """However many jobs it has."""
    world.execute(
        """with r as (insert into repositories select from generate_series(1, 3) returning id),
               t as (insert into tracked_repositories (repository_id, priority) select id, 'low' from r)
           insert into background_jobs (repository_id) select r.id from r, generate_series(1, 500)"""
    )
    world.execute("vacuum analyze tracked_repositories")
    with world.connection.transaction():
        looked_up = """select idx_scan + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables
                       where relname = 'tracked_repositories'"""
        before = world.value(looked_up)
        reader = Reader(world).poll()
        assert world.value(looked_up) - before <= 20
    assert [(each["priority"], each["jobs"]) for each in reader.queued] == [("low", 1500)]


def test_a_long_queue_is_counted_slice_by_slice(world: World, jobs: Jobs) -> None:
    world.execute(
        """insert into background_jobs (payload, created_at)
           select jsonb_build_object('priority', case when n > 11000 then 'high' else 'low' end),
               now() - make_interval(secs => 6000 - n / 10)
           from generate_series(1, 12000) n"""
    )

    def described(cursor: str) -> dict[str, Any]:
        return world.value("select priorityd.describe_queue(%s::text::priorityd.job_cursor)", cursor)

    cursor = world.value("select priorityd.walk_queue(null, 0)::text")
    seen = []
    for _ in range(4):
        found = described(cursor)
        seen.append((found["whole"], {each["priority"]: each["jobs"] for each in found["jobs"]}))
        cursor = world.value("select priorityd.walk_queue(%s::text::priorityd.job_cursor, 0)::text", cursor)
    assert seen == [
        (False, {"low": 5000}),
        (False, {"low": 10_000}),
        (True, {"low": 11_000, "high": 1000}),
        (True, {"low": 11_000, "high": 1000}),  # while the next walk is under way
    ]
    jobs.add("medium", created=7000)
    found = described(cursor)
    assert found["age_seconds"] >= 0
    assert [each["priority"] for each in found["jobs"]] == ["high", "low"], "as of counted_at"


def test_a_job_that_is_queued_behind_a_long_queue_is_found_to_be_overtaken(world: World, jobs: Jobs) -> None:
    world.execute(
        """insert into background_jobs (payload, created_at)
           select '{"priority": "low"}', now() - interval '1 h' from generate_series(1, 12000)"""
    )
    jobs.add("high", created=60)
    jobs.add("high", created=61)
    jobs.add("medium", status="processing", created=30, started=10)
    assert inversions(world)["count"] == 1


def test_types_without_end_are_counted_all_the_same(world: World) -> None:
    world.execute("insert into background_jobs (type) select 'type ' || n from generate_series(1, 3000) n")
    (waiting,) = Reader(world).poll().queued
    assert waiting["jobs"] == 3000
    assert world.value("select jsonb_array_length(queue_counted) <= 101 from priorityd.job_cursor")
