"""Each job is counted once, whatever order commits and daemons come in."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from tests.support.job_table import Jobs, Reader
from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database, Server


def test_a_late_commit_is_counted_although_others_ended_after_it(database: Database, jobs: Jobs) -> None:
    """The row's time is old by the time it can be seen."""
    slow = session(database, autocommit=False)
    reader = Reader(session(database)).poll()
    Jobs(slow).end("high")
    jobs.end("low")
    reader.poll()
    jobs.end("medium")
    assert reader.poll().jobs == [], "nothing after the open transaction's first write is settled"
    slow.connection.commit()
    reader.poll()
    assert sorted(priority for priority, _ in reader.jobs) == ["high", "low", "medium"]


@pytest.mark.parametrize("role", ["service_role", None])
def test_a_transaction_that_writes_late_is_waited_for_by_whoever_polls(
    database: Database, jobs: Jobs, role: str | None
) -> None:
    """Until it writes it has no transaction id; what it writes then is the time at which it began."""
    reader = Reader(World(database.connect(role))).poll()
    worker = session(database, autocommit=False)
    worker.execute("select count(*) from background_jobs")
    jobs.end("low")
    assert reader.poll().jobs == []
    Jobs(worker).end("high")
    assert reader.poll().jobs == []
    worker.connection.commit()
    assert sorted(priority for priority, _ in reader.poll().jobs) == ["high", "low"]


def test_what_holds_the_count_back_is_named(database: Database, jobs: Jobs) -> None:
    reader = Reader(session(database)).poll()
    assert reader.last["held_back_by"] is None
    worker = session(database, autocommit=False)
    worker.execute("select 1")
    assert reader.poll().last["held_back_by"] is None, "it has just begun"
    held = reader.poll().last["held_back_by"]
    assert (held["pid"], held["writes"]) == (worker.pid, False)
    assert held["seconds"] > 0
    Jobs(worker).end()
    assert reader.poll().last["held_back_by"]["writes"] is True
    worker.connection.commit()
    assert reader.poll().last["held_back_by"] is None


@pytest.mark.parametrize(("writes", "longest"), [(False, "5 minutes"), (True, "1 hour")])
def test_a_forgotten_transaction_is_waited_for_no_longer_than(
    database: Database, jobs: Jobs, writes: bool, longest: str
) -> None:
    reader = Reader(session(database)).poll()
    forgotten = session(database, autocommit=False)
    if writes:
        Jobs(forgotten).add("high")
    else:
        forgotten.execute("select count(*) from background_jobs")
    jobs.end("low")
    assert reader.poll().jobs == []
    age = """update priorityd.job_cursor set transactions = (
                 select jsonb_object_agg(key, value || jsonb_build_object('first_seen', now() - %s::interval))
                 from jsonb_each(transactions))"""
    jobs.world.execute(f"{age} where only_row", f"{longest} -10 s")
    assert reader.poll().jobs == []
    jobs.world.execute(f"{age} where only_row", f"{longest} 10 s")
    assert reader.poll().jobs == [("low", "completed")]


def test_transactions_of_other_databases_hold_nothing_up(
    server: Server, database: Database, jobs: Jobs
) -> None:
    reader = Reader(session(database)).poll()
    with server.database() as other:
        forgotten = session(other, autocommit=False)
        forgotten.execute("create table written ()")
        jobs.end()
        assert reader.poll().jobs == [("high", "completed")]


def test_a_prepared_transaction_is_waited_for_as_one_that_was_open_before(world: World) -> None:
    """Looked at with what an earlier look has met: whatever became prepared may have begun long before."""
    earlier = {
        "3/7 of 42": {
            "pid": 42,
            "since": "2025-01-03T00:00:00+00:00",
            "first_seen": "2025-01-03T00:00:00+00:00",
        }
    }
    world.execute("create view prepared as select '17'::xid as transaction, current_database() as database")
    body = world.value("select prosrc from pg_proc where proname = 'look_at_transactions'")
    found = world.value(
        "select ("
        + body.replace("pg_prepared_xacts", "prepared")
        .replace("p_before", "%s::jsonb")
        .replace("p_looked_at", "'2025-01-04Z'::timestamptz")
        + ")",
        *[json.dumps(earlier)] * 2,
    )
    assert found["prepared 17"]["since"].startswith("2025-01-03")
    assert found["prepared 17"]["pid"] is None


def test_a_restart_goes_on_where_the_last_daemon_was(world: World, jobs: Jobs) -> None:
    first = Reader(world).poll()
    jobs.end("high")
    first.poll()
    jobs.end("low")  # while no daemon runs
    second = Reader(world).poll()
    assert first.jobs == [("high", "completed")]
    assert second.jobs == [("low", "completed")]


def test_a_page_whose_answer_was_lost_comes_again(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    jobs.end()
    lost = reader.ask()
    assert [group["jobs"] for group in lost["finished"]] == [1]
    jobs.end()
    again = reader.ask()
    assert (again["page"], again["finished"]) == (lost["page"], lost["finished"])
    reader.count(again)
    reader.poll()
    assert len(reader.jobs) == 2


def test_two_daemons_that_both_believe_to_lead_count_each_job_once(database: Database, jobs: Jobs) -> None:
    readers = [Reader(session(database), limit=3) for _ in range(2)]
    chance = random.Random(1)
    readers[0].poll()
    for _ in range(60):
        jobs.end()
        reader = chance.choice(readers)
        answer = reader.ask()
        reader.count(reader.ask() if chance.random() < 0.3 else answer)
    for reader in readers:
        reader.poll()
    assert sum(len(reader.jobs) for reader in readers) == 60


def test_an_attempt_that_is_tried_again_counts_when_it_ends(world: World, jobs: Jobs) -> None:
    reader = Reader(world).poll()
    job = jobs.add("high", status="failed", created=30, started=20, ended=0)
    world.execute("update background_jobs set status = 'processing', started_at = now() where id = %s", job)
    assert reader.poll().jobs == []
    world.execute("update background_jobs set status = 'completed', completed_at = now() where id = %s", job)
    assert reader.poll().jobs == [("high", "completed")]
