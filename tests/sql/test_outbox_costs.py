"""What the outbox reads, however long the trail and the backlog are: its low-water mark and its plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.database import Database
from tests.support.outbox_calls import ME, OTHER, claim, depth, ids
from tests.support.query_plans import explain, source_of
from tests.support.world import World, session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.database import Server


def recorded(world: World, times: int) -> None:
    """So many changes on record, of so many repositories."""
    world.execute(
        """insert into repository_priority_changes (
               tracked_repository_id, old_priority, new_priority, is_workspace_repo, workspace_count, trigger
           ) select gen_random_uuid(), 'medium', 'high', true, 1, 'event' from generate_series(1, %s)""",
        times,
    )


def dispatch_all(world: World) -> int:
    """All there is to claim; how many."""
    dispatched = 0
    while changes := claim(world):
        world.call("mark_priority_changes_dispatched", ids(changes))
        dispatched += len(changes)
    return dispatched


@pytest.mark.plans
def test_a_snapshot_held_open_makes_no_claim_dearer(outbox: World, database: Database) -> None:
    holder = session(database, autocommit=False)
    holder.execute("set transaction isolation level repeatable read")
    holder.execute("select count(*) from repository_priority_changes")
    recorded(outbox, 6000)
    assert dispatch_all(outbox) == 6000
    claim(outbox)
    pages, _ = rows_read(outbox, "claim_priority_changes", ME, 500)
    assert pages < 300
    assert rows_read(outbox, "priority_outbox_depth")[0] < 300
    holder.connection.rollback()


def test_a_change_that_is_seen_late_is_claimed_although_the_mark_has_moved(
    outbox: World, database: Database
) -> None:
    late, later = session(database, autocommit=False), session(database)
    late.execute("insert into repositories default values")  # as a sync has written before it records
    recorded(late, 1)
    recorded(later, 3000)
    assert dispatch_all(outbox) == 3000
    assert claim(outbox) == []
    late.connection.commit()
    (change,) = claim(outbox)
    assert depth(outbox)[0] == 1
    outbox.call("mark_priority_changes_dispatched", [change["id"]])
    for _ in range(3):
        claim(outbox)
    mark = "select pending_after >= 3000 from priorityd.outbox"
    assert outbox.value(mark)


def test_an_abandoned_change_that_is_tried_again_is_found_before_the_mark(outbox: World) -> None:
    recorded(outbox, 1)
    (change,) = claim(outbox)
    outbox.call("abandon_priority_changes", [change["id"]], ["no"])
    recorded(outbox, 2000)
    dispatch_all(outbox)
    claim(outbox)
    assert outbox.value("select pending_after > %s from priorityd.outbox", change["id"])
    outbox.execute("update repository_priority_changes set abandoned_at = null, next_attempt_at = now()")
    outbox.execute("update priorityd.outbox set looked_before_at = now() - interval '61 s' where only_row")
    assert ids(claim(outbox)) == [change["id"]]
    assert depth(outbox) == (1, 0), "it is pending, and counts"


# Plans, with a million changes on record and a hundred thousand of them pending.


@pytest.fixture(scope="module")
def long_trail(server: Server, template: str) -> Iterator[World]:
    with server.database(template) as database:
        world = session(database)
        world.execute(
            """insert into tracked_repositories (repository_id) select null from generate_series(1, 2000);
               insert into repository_priority_changes (
                   tracked_repository_id, old_priority, new_priority, is_workspace_repo, workspace_count,
                   trigger, changed_at, dispatched_at
               )
               select t.id, 'medium', 'high', true, 1, 'event',
                   now() - make_interval(secs => 1000000 - n),
                   case when n <= 900000 then now() end
               from generate_series(1, 1000000) n
               join (select id, row_number() over () as k from tracked_repositories) t on t.k = 1 + n % 2000
               order by n"""
        )
        world.execute("update priorityd.outbox set announce_after = 500000")
        world.execute("vacuum (analyze)")
        yield world


def rows_read(world: World, function: str, *arguments: object) -> tuple[int, int]:
    """Pages of the database touched by a call, and the rows of the trail that were read in sequence."""
    marks = ", ".join(["%s"] * len(arguments))
    with world.connection.transaction(force_rollback=True):
        before = sequential(world)
        row = world.execute(
            f"explain (analyze, buffers, format json) select public.{function}({marks})", *arguments
        ).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], sequential(world) - before


def sequential(world: World) -> int:
    return world.value(
        "select seq_tup_read from pg_stat_xact_user_tables where relname = 'repository_priority_changes'"
    )


@pytest.mark.million
def test_claiming_costs_the_batch_however_long_trail_and_backlog_are(long_trail: World) -> None:
    rows_read(long_trail, "claim_priority_changes", ME, 10)  # the first call of a session reads the catalog
    for _ in range(8):  # beyond the calls after which a plan is kept
        small, in_sequence = rows_read(long_trail, "claim_priority_changes", ME, 10)
        assert in_sequence == 0
        assert small < 1500
        large, in_sequence = rows_read(long_trail, "claim_priority_changes", ME, 500)
        assert in_sequence == 0
        assert large < 500 * 30


@pytest.mark.million
def test_claiming_past_what_is_under_way_costs_little_more(long_trail: World) -> None:
    with long_trail.connection.transaction(force_rollback=True):
        for _ in range(4):
            assert len(claim(long_trail, OTHER, 500)) == 500
        pages, in_sequence = rows_read(long_trail, "claim_priority_changes", ME, 500)
        assert in_sequence == 0
        assert pages < 2500 * 40


@pytest.mark.million
def test_settling_and_trimming_read_no_more_than_their_rows(long_trail: World) -> None:
    change_ids = list(range(900_001, 900_501))
    for function, arguments in (
        ("mark_priority_changes_dispatched", (change_ids,)),
        ("abandon_priority_changes", (change_ids, ["x"] * 500)),
        ("return_priority_changes", (ME, change_ids, "x", 1.0)),
        ("trim_priority_changes", (1, 0, 500)),
        ("trim_priority_changes", (90, 0, 500)),
    ):
        rows_read(long_trail, function, *arguments)
        pages, in_sequence = rows_read(long_trail, function, *arguments)
        assert in_sequence == 0, function
        assert pages < 500 * 40, function


@pytest.mark.million
def test_the_depth_is_counted_from_the_index_of_pending_rows(long_trail: World) -> None:
    counting = (
        source_of(long_trail, "priority_outbox_depth")
        .replace("o.announce_after", "500000")
        .replace("o.pending_after", "0")
    )
    plan = explain(long_trail, counting)
    used = {node["Index Name"] for node in plan if node.get("Index Name")}
    assert used >= {"idx_repository_priority_changes_pending"}
    assert not [
        node
        for node in plan
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "repository_priority_changes"
    ]
