"""The release policy: no inversion without need, no starvation, and no promise broken by the other alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from priorityd.core.jobs.release_policy import promote_after_seconds
from priorityd.core.priorities import PRIORITIES
from tests.support.release_choice import Choice, Waiting, choose

OVERDUE = 72_000.0
ages = st.none() | st.floats(min_value=0, max_value=200_000) | st.sampled_from([OVERDUE, OVERDUE - 1])
waitings = st.builds(Waiting, st.booleans(), ages, ages)


def decide(waiting: Waiting, *, promoted_last: bool = False) -> Choice | None:
    return choose(waiting, promoted_last=promoted_last, promote_after_seconds=OVERDUE)


def test_a_job_is_overdue_when_five_sixths_of_its_deadline_have_passed() -> None:
    assert promote_after_seconds(86_400) == OVERDUE


def test_the_highest_priority_that_waits_goes_first() -> None:
    assert decide(Waiting(True, 10.0, 10.0)) == Choice("high", promoted=False)
    assert decide(Waiting(False, 10.0, 10.0)) == Choice("medium", promoted=False)
    assert decide(Waiting(False, None, 10.0)) == Choice("low", promoted=False)
    assert decide(Waiting(False, None, None)) is None


def test_what_is_overdue_goes_before_higher_ones_but_not_twice_in_a_row() -> None:
    assert decide(Waiting(True, OVERDUE, None)) == Choice("medium", promoted=True)
    assert decide(Waiting(True, OVERDUE, None), promoted_last=True) == Choice("high", promoted=False)
    assert decide(Waiting(False, 10.0, OVERDUE)) == Choice("low", promoted=True)


def test_of_two_that_are_overdue_the_one_that_has_waited_longest_is_promoted() -> None:
    assert decide(Waiting(True, OVERDUE + 1, OVERDUE + 2)) == Choice("low", promoted=True)
    assert decide(Waiting(True, OVERDUE + 2, OVERDUE + 1)) == Choice("medium", promoted=True)


def test_going_first_by_priority_is_no_promotion_however_overdue() -> None:
    assert decide(Waiting(False, OVERDUE + 2, OVERDUE + 1)) == Choice("medium", promoted=False)
    assert decide(Waiting(False, OVERDUE + 1, OVERDUE + 1)) == Choice("medium", promoted=False)
    assert decide(Waiting(False, OVERDUE, None)) == Choice("medium", promoted=False)
    assert decide(Waiting(False, None, OVERDUE)) == Choice("low", promoted=False)


@given(waitings, st.booleans())
def test_something_is_chosen_whenever_something_waits_and_only_what_waits(
    waiting: Waiting, promoted_last: bool
) -> None:
    there = {
        "high": waiting.high,
        "medium": waiting.medium_seconds is not None,
        "low": waiting.low_seconds is not None,
    }
    choice = decide(waiting, promoted_last=promoted_last)
    assert (choice is not None) == any(there.values())
    assert choice is None or there[choice.priority]


@given(waitings, st.booleans())
def test_nothing_goes_before_a_higher_one_unless_it_is_overdue_and_called_a_promotion(
    waiting: Waiting, promoted_last: bool
) -> None:
    choice = decide(waiting, promoted_last=promoted_last)
    if choice is None:
        return
    seconds = {"high": None, "medium": waiting.medium_seconds, "low": waiting.low_seconds}
    higher = PRIORITIES[: PRIORITIES.index(choice.priority)]
    overtakes = waiting.high or any(seconds[each] is not None for each in higher)
    assert choice.promoted == (choice.priority != "high" and overtakes)
    if choice.promoted:
        assert not promoted_last
        own = seconds[choice.priority]
        assert own is not None
        assert own >= OVERDUE


@given(
    st.lists(st.sampled_from(["medium", "low"]), min_size=1, max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_an_overdue_job_waits_for_twice_those_before_it_and_one_more_however_many_high_ones_come(
    overdue: list[str], high_always_waits: bool, promoted_last: bool
) -> None:
    """The oldest first in the list; medium ones that are not overdue always wait as well."""
    waiting = [(priority, 2 * OVERDUE - number) for number, priority in enumerate(overdue)]
    served = 0
    while waiting:
        heads = {
            each: next((seconds for priority, seconds in waiting if priority == each), None)
            for each in ("medium", "low")
        }
        choice = decide(
            Waiting(high_always_waits, heads["medium"] if heads["medium"] is not None else 1.0, heads["low"]),
            promoted_last=promoted_last,
        )
        assert choice is not None
        promoted_last = choice.promoted
        served += 1
        own = heads.get(choice.priority)
        if own is not None:
            waiting.remove((choice.priority, own))
        for number, (_, seconds) in enumerate(waiting):
            older = int(2 * OVERDUE - seconds)  # how many were older at the start
            assert served <= 2 * older + 1, (number, served)


@given(st.integers(min_value=1, max_value=50), st.booleans())
def test_at_least_every_second_release_is_by_priority_however_many_are_overdue(
    releases: int, promoted_last: bool
) -> None:
    by_priority = 0
    for _ in range(releases):
        choice = decide(Waiting(True, 3 * OVERDUE, 3 * OVERDUE), promoted_last=promoted_last)
        assert choice is not None
        promoted_last = choice.promoted
        by_priority += choice.priority == "high"
    assert by_priority >= releases // 2
