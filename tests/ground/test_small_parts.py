"""Priorities, pacing, requests, the cache."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from priorityd.core.database.schema import MIGRATION_SET, SchemaVersion, demand_version
from priorityd.core.errors import ContractError
from priorityd.core.library.membership_cache import MembershipCache
from priorityd.core.pacing import QUIET_LOOKS, LookPace, SweepPace
from priorityd.core.priorities import PRIORITIES, SCORES, Expected, expected, score
from priorityd.core.repair.requests import Request, Requests

T0 = datetime(2025, 1, 3, tzinfo=UTC)


def test_the_rules_of_priority() -> None:
    assert expected(1, None) == Expected("high", is_workspace_repo=True, workspace_count=1)
    assert expected(3, "low") == Expected("high", is_workspace_repo=True, workspace_count=3)
    assert expected(0, None) == Expected("medium", is_workspace_repo=False, workspace_count=0)
    for manual in PRIORITIES:
        assert expected(0, manual).priority == manual


def test_scores_rank_priorities_and_an_unknown_one_is_medium() -> None:
    assert [score(priority) for priority in PRIORITIES] == [100, 50, 25]
    assert score(None) == SCORES["medium"]


def test_a_large_database_is_swept_less_often() -> None:
    pace = SweepPace(interval_seconds=10, debounce_seconds=0.2)
    assert pace.next_periodic_at(5.0) == 5.0
    for _ in range(3):
        pace.finished(0.0, 0.02)
    assert (pace.next_periodic_at(1.0), pace.next_requested_at(1.0)) == (10.0, 0.2)
    for _ in range(3):
        pace.finished(0.0, 0.5)
    assert [pace.next_periodic_at(1.0), pace.next_requested_at(1.0), pace.next_urgent_at(1.0)] == [
        50,
        2.5,
        0.5,
    ]


def test_sweeps_that_waited_for_locks_make_the_next_ones_no_rarer() -> None:
    pace = SweepPace(interval_seconds=10, debounce_seconds=0.2)
    for started_at in (0.0, 10.0):
        pace.finished(started_at, 0.01)
    for started_at in (20.0, 30.0, 40.0):
        pace.finished(started_at, None)
    assert pace.next_periodic_at(41.0) == 50.0
    assert pace.next_requested_at(41.0) == 40.2


def test_one_costly_sweep_among_cheap_ones_changes_nothing() -> None:
    pace = SweepPace(interval_seconds=10, debounce_seconds=0.2)
    for seconds in (3.0, 0.02, 5.0):
        pace.finished(0.0, seconds)
        assert (pace.next_periodic_at(1.0), pace.next_requested_at(1.0)) == (10.0, 0.2)


def test_requests_during_a_run_become_one() -> None:
    requests = Requests()
    requests.add("signal")
    assert requests.take() == Request("signal")
    assert not requests
    requests.add("signal", T0 + timedelta(seconds=1))
    requests.add("event", T0)
    requests.add("event")
    assert requests.take() == Request("signal", T0)
    assert requests.take() is None


def test_a_failed_request_waits_ahead_of_what_came_meanwhile() -> None:
    requests = Requests()
    requests.add("event", T0)
    requests.put_back(Request("reconnect", T0 + timedelta(seconds=1)))
    assert requests.take() == Request("reconnect", T0)


def test_a_cached_look_up_ends_with_its_time_or_with_a_change() -> None:
    cache: MembershipCache[int] = MembershipCache(ttl_seconds=300)
    key = uuid4()
    cache.put(key, 2, 0.0, cache.generation)
    assert (cache.get(key, 299.9), cache.get(key, 300.0)) == (2, None)
    cache.put(key, 2, 0.0, cache.generation)
    cache.drop(key)
    assert cache.get(key, 1.0) is None


def test_a_look_up_overtaken_by_a_change_is_not_remembered() -> None:
    cache: MembershipCache[int] = MembershipCache()
    key, generation = uuid4(), 0
    cache.drop(key)
    cache.put(key, 2, 0.0, generation)
    assert cache.get(key, 0.0) is None


def test_the_cache_is_bounded() -> None:
    cache: MembershipCache[int] = MembershipCache(max_entries=2)
    keys = [uuid4() for _ in range(3)]
    for key in keys:
        cache.put(key, 1, 0.0, cache.generation)
    assert [cache.get(key, 0.0) for key in keys] == [None, 1, 1]


def test_an_older_set_is_refused_and_a_newer_one_if_it_says_so() -> None:
    demand_version(SchemaVersion(MIGRATION_SET, 1, ()))
    demand_version(SchemaVersion(MIGRATION_SET + 5, MIGRATION_SET, ()))
    with pytest.raises(ContractError, match="priorityd migrations --into"):
        demand_version(SchemaVersion(MIGRATION_SET - 1, 1, ()))
    with pytest.raises(ContractError, match="upgrade priorityd"):
        demand_version(SchemaVersion(MIGRATION_SET + 1, MIGRATION_SET + 1, ()))


def test_a_line_that_was_left_out_is_known_by_its_units() -> None:
    version = SchemaVersion(1, 1, ("20250103000000 columns", "20250103000700 functions"))
    names = ("20250103000000_a.sql", "20250103000700_b.sql", "20250103000800_c.sql")
    assert version.lacks(names) == ("20250103000800_c.sql",)


def test_looks_rest_longer_after_some_that_found_nothing_until_one_finds_something() -> None:
    pace = LookPace(5, 0.01, 60)
    rests = [pace.rest_after(0.01, quiet=True) for _ in range(QUIET_LOOKS + 1)]
    assert rests == [5] * (QUIET_LOOKS - 1) + [60, 60]
    assert pace.shortest_rest() == 5, "whoever has heard of something need not wait for the long rest"
    assert pace.rest_after(0.01, quiet=False) == 5
    assert pace.rest_after(0.01, quiet=True) == 5


def test_looks_rest_longer_where_they_are_dear_and_one_slow_look_changes_nothing() -> None:
    pace = LookPace(5, 0.01, 60)
    assert pace.rest_after(3, quiet=False) == 5, "the first is slow because nothing is cached"
    assert pace.rest_after(0.01, quiet=False) == 5
    assert pace.rest_after(2, quiet=False) == 5
    assert pace.rest_after(0.2, quiet=False) == 5
    assert pace.rest_after(0.3, quiet=False) == pytest.approx(20)
