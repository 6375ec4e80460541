"""The outages of the last hour: from when to when, and by which name."""

from __future__ import annotations

from datetime import timedelta

from priorityd.core.status.facts import DatabaseFacts, Facts, StreamFacts
from priorityd.core.status.outages import Outage, Outages
from priorityd.core.status.problems import find_problems
from tests.support.reports import NOW

WELL = Facts()
DEAF = Facts(stream=StreamFacts(unheard_seconds=30))
SILENT = Facts(database=DatabaseFacts(silent_seconds=40), stream=StreamFacts(unheard_seconds=70))


def noted(*seen: tuple[float, Facts]) -> list[Outage]:
    """What is known after these, each so many seconds from now."""
    outages = Outages()
    for seconds, facts in seen:
        outages.note(facts, find_problems(facts), NOW + timedelta(seconds=seconds))
    return outages.recent(NOW + timedelta(seconds=seen[-1][0]))


def at(seconds: float) -> object:
    return NOW + timedelta(seconds=seconds)


def test_begins_when_what_is_known_began_to_be_old_and_ends_when_it_is_new() -> None:
    assert noted((0, WELL)) == []
    assert noted((0, DEAF), (5, DEAF)) == [Outage("changes_not_heard", NOW - timedelta(seconds=30))]
    (over,) = noted((0, DEAF), (5, WELL), (10, WELL))
    assert (over.began_at, over.ended_at) == (at(-30), at(5))


def test_one_that_follows_another_begins_where_that_ended() -> None:
    deaf, silent, still_deaf = noted((0, DEAF), (30, SILENT), (60, DEAF))
    assert (deaf.name, deaf.ended_at) == ("changes_not_heard", at(30))
    assert (silent.name, silent.began_at, silent.ended_at) == ("database_silent", at(30), at(60))
    assert (still_deaf.began_at, still_deaf.ended_at) == (at(60), None)


def test_what_was_over_before_the_last_hour_is_forgotten() -> None:
    seen = ((0, DEAF), (60, WELL))
    assert len(noted(*seen, (3600, WELL))) == 1
    assert noted(*seen, (3661, WELL)) == []


def test_a_clock_that_was_hours_ahead_leaves_nothing_at_times_to_come() -> None:
    hours = 5 * 3600
    assert noted((hours, DEAF), (hours + 60, WELL), (0, WELL)) == []
    (over,) = noted((hours, DEAF), (0, DEAF), (10, WELL))
    assert (over.began_at, over.ended_at) == (at(-30), at(10))
    ended, deaf = noted((0, DEAF), (hours, WELL), (5, WELL), (40, DEAF))
    assert (ended.ended_at, deaf.began_at) == (at(hours), at(40))


def test_a_fault_that_comes_and_goes_does_not_grow() -> None:
    many = [(10.0 * number, (DEAF, WELL)[number % 2]) for number in range(1000)]
    assert len(noted(*many)) <= 60
