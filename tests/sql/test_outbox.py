"""The outbox: claiming, settling, and beginning from now on."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.support.database import Database
from tests.support.outbox_calls import ME, OTHER, changed, claim, depth, expire, ids, opened
from tests.support.world import World, session


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
    assert (again["from_now_on"], again["database_id"]) == (False, first["database_id"])
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
    outbox: World, function: str, wrong: dict[str, Any]
) -> None:
    right: dict[str, dict[str, Any]] = {
        "claim_priority_changes": {"p_daemon_id": ME},
        "return_priority_changes": {"p_daemon_id": ME, "p_ids": [1], "p_error": "x", "p_delay_seconds": 1},
        "poll_background_jobs": {"p_daemon_id": ME},
    }
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^{next(iter(wrong))} is "):
        outbox.call(function, **right.get(function, {}) | wrong)
