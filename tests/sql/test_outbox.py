"""The outbox: claiming, settling, beginning from now on, and trimming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.sql.test_plans import explain, source_of
from tests.support.database import Database
from tests.support.world import World, session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.database import Server

ME, OTHER = uuid4(), uuid4()


def opened(world: World) -> dict[str, Any]:
    return world.call("open_priority_outbox")


def changed(world: World, repository: UUID | None = None, times: int = 1) -> UUID:
    """A tracked repository with that many changes on record."""
    repository = repository or world.tracked()
    for _ in range(times):
        row = world.row(repository)
        if row.is_workspace_repo:
            world.execute("delete from workspace_repositories where repository_id = %s", repository)
        else:
            world.add(repository)
        assert world.sync(repository)["changed"] == 1
    return repository


def claim(world: World, by: UUID = ME, limit: int = 500, seconds: float = 60) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = world.call("claim_priority_changes", by, limit, seconds)["changes"]
    return changes


def ids(changes: list[dict[str, Any]]) -> list[int]:
    return [change["id"] for change in changes]


def depth(world: World) -> tuple[int, int]:
    answer = world.call("priority_outbox_depth")
    return answer["pending"], answer["abandoned"]


def expire(world: World, *change_ids: int) -> None:
    world.execute(
        "update repository_priority_changes set next_attempt_at = now() where id = any (%s)", list(change_ids)
    )


@pytest.fixture
def outbox(world: World) -> World:
    """A database that a dispatcher has begun with."""
    opened(world)
    return world


def test_a_change_of_a_row_without_a_repository_is_announced_by_what_the_row_says(outbox: World) -> None:
    said = {"organization_name": "acme", "repository_name": "web"}
    row = outbox.track(None, priority="low", **said)
    outbox.resync()
    (change,) = claim(outbox)
    assert (change["tracked_repository_id"], change["repository_id"], change["repository_name"]) == (
        str(row),
        None,
        "acme/web",
    )


def test_a_change_is_claimed_with_all_that_is_announced_of_it(outbox: World) -> None:
    repository = outbox.tracked(organization_name="acme", repository_name="web")
    changed(outbox, repository)
    (change,) = claim(outbox)
    row = outbox.value("select id from tracked_repositories where repository_id = %s", repository)
    assert change | {"id": 0, "changed_at": ""} == {
        "id": 0,
        "changed_at": "",
        "tracked_repository_id": str(row),
        "repository_id": str(repository),
        "repository_name": "acme/web",
        "old_priority": "medium",
        "new_priority": "high",
        "old_is_workspace_repo": False,
        "is_workspace_repo": True,
        "workspace_count": 1,
        "trigger": "manual",
        "attempts": 1,
    }


def test_a_claimed_change_is_nobody_elses_until_the_claim_runs_out(outbox: World) -> None:
    changed(outbox)
    (change,) = claim(outbox)
    assert claim(outbox, OTHER) == []
    expire(outbox, change["id"])
    assert [(again["id"], again["attempts"]) for again in claim(outbox, OTHER)] == [(change["id"], 2)]


def test_the_oldest_are_claimed_first_up_to_the_limit(outbox: World) -> None:
    for _ in range(5):
        changed(outbox)
    first = claim(outbox, limit=3)
    second = claim(outbox, OTHER, limit=3)
    assert ids(first) == sorted(ids(first))
    assert len(first) == 3
    assert len(second) == 2
    assert max(ids(first)) < min(ids(second))


def test_two_dispatchers_at_once_never_claim_the_same(outbox: World, database: Database) -> None:
    for _ in range(4):
        changed(outbox)
    one, two = session(database, autocommit=False), session(database)
    mine = claim(one, ME, limit=2)
    theirs = claim(two, OTHER)
    assert len(mine) == len(theirs) == 2
    assert not set(ids(mine)) & set(ids(theirs))
    one.connection.commit()


def test_changes_of_a_repository_wait_for_the_older_ones(outbox: World) -> None:
    repository = changed(outbox, times=3)
    other = changed(outbox)
    first = claim(outbox, limit=1)
    assert [change["repository_id"] for change in claim(outbox, OTHER)] == [str(other)]
    outbox.call("return_priority_changes", ME, ids(first), "for now", 3600)
    assert claim(outbox, OTHER) == [], "put back, it still goes first"
    expire(outbox, *ids(first))
    again = claim(outbox)
    assert ids(again)[:1] == ids(first)
    assert [change["repository_id"] for change in again] == [str(repository)] * 3


def test_what_is_dispatched_is_pending_no_more(outbox: World) -> None:
    changed(outbox, times=2)
    assert depth(outbox) == (2, 0)
    change_ids = ids(claim(outbox))
    assert outbox.call("mark_priority_changes_dispatched", change_ids) == {"dispatched": 2}
    assert outbox.call("mark_priority_changes_dispatched", change_ids) == {"dispatched": 0}
    assert depth(outbox) == (0, 0)
    expire(outbox, *change_ids)
    assert claim(outbox) == []


def test_what_is_given_up_keeps_its_reason_and_can_be_tried_again(outbox: World) -> None:
    changed(outbox)
    changed(outbox)
    one, two = ids(claim(outbox))
    assert outbox.call("abandon_priority_changes", [one, two], ["too large", "no name"]) == {"abandoned": 2}
    rows = outbox.execute("select last_error from repository_priority_changes order by id").fetchall()
    assert rows == [("too large",), ("no name",)]
    assert depth(outbox) == (0, 2)
    expire(outbox, one, two)
    assert claim(outbox) == []
    outbox.execute(
        "update repository_priority_changes set abandoned_at = null, next_attempt_at = now() where id = %s",
        one,
    )
    assert ids(claim(outbox)) == [one]


def test_what_is_put_back_is_due_after_the_delay_and_says_why(outbox: World) -> None:
    changed(outbox)
    change_ids = ids(claim(outbox))
    assert outbox.call("return_priority_changes", OTHER, change_ids, "not mine", 0) == {"returned": 0}
    assert outbox.call("return_priority_changes", ME, change_ids, "it is down", 600) == {"returned": 1}
    assert claim(outbox) == []
    assert outbox.value("select last_error from repository_priority_changes") == "it is down"
    assert outbox.value(
        "select next_attempt_at between now() + '590 s' and now() + '601 s' from repository_priority_changes"
    )
    expire(outbox, *change_ids)
    assert outbox.call("return_priority_changes", ME, change_ids, None, 0) == {"returned": 0}
    assert ids(claim(outbox)) == change_ids


def test_history_is_no_news(world: World) -> None:
    old = changed(world, times=3)
    assert depth(world) == (0, 0), "nobody announces, so nothing waits"
    assert claim(world) == []
    assert opened(world)["from_now_on"]
    assert claim(world) == []
    assert depth(world) == (0, 0)
    changed(world, old)
    assert len(claim(world)) == 1


def test_after_a_break_it_goes_on_where_it_stopped(outbox: World) -> None:
    first = opened(outbox)
    outbox.execute("update priorityd.outbox set dispatcher_seen_at = now() - interval '6 days'")
    changed(outbox)
    again = opened(outbox)
    assert (again["from_now_on"], again["announce_after"]) == (False, first["announce_after"])
    assert again["database_id"] == first["database_id"]
    assert len(claim(outbox)) == 1


def test_switched_on_again_after_long_it_begins_from_now_on(outbox: World) -> None:
    changed(outbox)
    outbox.execute("update priorityd.outbox set dispatcher_seen_at = now() - interval '8 days'")
    assert opened(outbox)["from_now_on"]
    assert depth(outbox) == (0, 0)


def test_a_dispatcher_that_only_claims_is_seen(outbox: World) -> None:
    outbox.execute("update priorityd.outbox set dispatcher_seen_at = now() - interval '6 days'")
    claim(outbox)
    assert outbox.value("select dispatcher_seen_at > now() - interval '5 s' from priorityd.outbox")


def test_the_snapshot_tells_how_much_waits_and_for_how_long(outbox: World) -> None:
    changed(outbox, times=2)
    outbox.execute(
        "update repository_priority_changes set changed_at = now() - interval '1 h'"
        " where id = (select min(id) from repository_priority_changes)"
    )
    snapshot = outbox.call("workspace_priority_snapshot")
    assert (snapshot["outbox_pending"], snapshot["outbox_abandoned"]) == (2, 0)
    assert 3600 <= snapshot["outbox_oldest_seconds"] < 3700


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        ("claim_priority_changes", {"p_daemon_id": None}),
        ("claim_priority_changes", {"p_limit": 0}),
        ("claim_priority_changes", {"p_claim_seconds": 0}),
        ("claim_priority_changes", {"p_claim_seconds": float("nan")}),
        ("claim_priority_changes", {"p_claim_seconds": 3601}),
        ("return_priority_changes", {"p_delay_seconds": -1}),
        ("return_priority_changes", {"p_delay_seconds": float("inf")}),
        ("open_priority_outbox", {"p_forget_after_days": 0}),
        ("open_priority_outbox", {"p_forget_after_days": 2_000_000_000}),
        ("trim_priority_changes", {"p_keep_days": 0}),
        ("trim_priority_changes", {"p_keep_days": 2_000_000_000}),
        ("trim_priority_changes", {"p_keep_days": None}),
        ("trim_priority_changes", {"p_after": None}),
        ("trim_priority_changes", {"p_limit": 100_001}),
        ("poll_background_jobs", {"p_settle_seconds": -1}),
        ("poll_background_jobs", {"p_settle_seconds": 1e300}),
        ("poll_background_jobs", {"p_settle_seconds": None}),
        ("poll_background_jobs", {"p_limit": None}),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(
    outbox: World, function: str, wrong: dict[str, object]
) -> None:
    right: dict[str, dict[str, object]] = {
        "claim_priority_changes": {"p_daemon_id": ME},
        "return_priority_changes": {"p_daemon_id": ME, "p_ids": [1], "p_error": "x", "p_delay_seconds": 1},
        "poll_background_jobs": {"p_daemon_id": ME},
    }
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^{next(iter(wrong))} is "):
        outbox.call(function, **right.get(function, {}) | wrong)


# Trimming.


def aged(world: World, days: int) -> None:
    world.execute(
        "update repository_priority_changes set changed_at = now() - make_interval(days => %s)", days
    )


def trim(world: World, keep_days: int = 90, limit: int = 5000) -> list[dict[str, Any]]:
    pages = [world.call("trim_priority_changes", keep_days, 0, limit)]
    while pages[-1]["next_after"] is not None:
        pages.append(world.call("trim_priority_changes", keep_days, pages[-1]["next_after"], limit))
    return pages


def test_old_changes_are_trimmed_in_batches_and_young_ones_stay(world: World) -> None:
    repository = changed(world, times=25)
    aged(world, 91)
    changed(world, repository, times=2)
    pages = trim(world, limit=10)
    assert [page["trimmed"] for page in pages] == [10, 10, 5]
    assert world.value("select count(*) from repository_priority_changes") == 2
    assert [page["trimmed"] for page in trim(world)] == [0]


def test_pending_changes_stay_however_old_and_stop_nothing(outbox: World) -> None:
    changed(outbox, times=10)
    done = ids(claim(outbox))
    outbox.call("mark_priority_changes_dispatched", done[5:9])
    outbox.call("abandon_priority_changes", done[9:], ["refused"])
    aged(outbox, 200)
    assert sum(page["trimmed"] for page in trim(outbox, limit=5)) == 5
    left = outbox.execute("select id from repository_priority_changes order by id").fetchall()
    assert [row[0] for row in left] == done[:5]


def test_what_was_never_to_be_announced_is_trimmed(outbox: World) -> None:
    outbox.execute("update priorityd.outbox set announce_after = null")
    changed(outbox, times=3)
    opened(outbox)
    aged(outbox, 91)
    assert sum(page["trimmed"] for page in trim(outbox)) == 3


# The low-water mark.


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
