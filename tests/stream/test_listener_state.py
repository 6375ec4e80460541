"""The listener's state machine, every arrow of its picture and the inputs that must change nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorityd.core.stream.listener_state import (
    BACKOFF_MAX_SECONDS,
    HEALTHY_AFTER_SECONDS,
    JOIN_TIMEOUT_SECONDS,
    RENEW_AFTER_SECONDS,
    RENEWAL_RETRY_SECONDS,
    Action,
    BeatOverdue,
    BeatSeen,
    Failed,
    Input,
    ListenerState,
    Opened,
    Renew,
    Stop,
    Subscribed,
    SuccessorFailed,
    SuccessorSubscribed,
    Tick,
    initial,
    transition,
)


def after(*events: Input, now: float = 0.0) -> tuple[ListenerState, list[Action]]:
    state, actions = initial(now)
    for event in events:
        state, actions = transition(state, event, now, 0.0)
    return state, actions


def test_begins_by_opening_a_connection() -> None:
    state, actions = initial(0.0)
    assert (state.name, actions) == ("connecting", [Action.OPEN])


def test_is_live_only_after_the_system_ok_and_then_asks_for_a_sweep() -> None:
    assert after(Opened())[0].name == "joining"
    state, actions = after(Opened(), Subscribed())
    assert (state.name, actions) == ("live", [Action.ASK_FOR_SWEEP])


def test_another_system_ok_means_a_gap() -> None:
    state, actions = after(Opened(), Subscribed(), Subscribed())
    assert (state.name, actions) == ("live", [Action.ASK_FOR_SWEEP])


def test_a_join_that_is_never_confirmed_times_out() -> None:
    state, _ = after(Opened())
    assert transition(state, Tick(), JOIN_TIMEOUT_SECONDS - 0.1, 0.0)[0] is state
    late, actions = transition(state, Tick(), JOIN_TIMEOUT_SECONDS, 0.0)
    assert (late.name, actions) == ("backing_off", [Action.CLOSE])
    assert late.last_failure == Failed("join_timeout")


def test_the_first_heartbeat_row_ends_the_gap_that_the_system_ok_left() -> None:
    state, actions = after(Opened(), Subscribed(), BeatSeen())
    assert (state.name, state.confirmed, actions) == ("live", True, [Action.ASK_FOR_SWEEP])
    assert transition(state, BeatSeen(), 1.0, 0.0) == (state, [])


@pytest.mark.parametrize("end", [Failed("closed"), BeatOverdue()])
def test_the_next_connection_is_confirmed_by_a_heartbeat_row_of_its_own(end: Input) -> None:
    state, _ = after(Opened(), Subscribed(), BeatSeen(), end)
    assert not state.confirmed
    assert transition(state, BeatSeen(), 1.0, 0.0) == (state, [])


@pytest.mark.parametrize("events", [(), (Opened(),)])
def test_a_failure_before_it_is_live_backs_off_and_closes(events: tuple[Input, ...]) -> None:
    state, actions = after(*events, Failed("closed", "1012"))
    assert (state.name, state.failures, actions) == ("backing_off", 1, [Action.CLOSE])


def test_a_live_connection_that_is_lost_asks_for_a_sweep_at_once() -> None:
    state, actions = after(Opened(), Subscribed(), Failed("closed", "1012"))
    assert (state.name, state.failures) == ("backing_off", 1)
    assert actions == [Action.CLOSE, Action.ASK_FOR_SWEEP]


def test_reconnects_for_ever_with_growing_but_bounded_delays() -> None:
    state, _ = initial(0.0)
    now, delays = 0.0, []
    for _ in range(50):
        state, _ = transition(state, Failed("connect_failed"), now, 0.999)
        assert state.deadline is not None
        delays.append(state.deadline - now)
        now = state.deadline
        state, actions = transition(state, Tick(), now, 0.0)
        assert (state.name, actions) == ("connecting", [Action.OPEN])
    assert delays[0] <= 0.5
    assert all(later >= sooner * 0.999 for sooner, later in pairwise(delays))
    assert BACKOFF_MAX_SECONDS * 0.9 <= delays[-1] <= BACKOFF_MAX_SECONDS


def test_health_resets_the_delay_and_a_short_life_does_not() -> None:
    live = replace(after(Opened(), Subscribed())[0], failures=6)
    assert transition(live, Failed("closed"), 5.0, 0.0)[0].failures == 7
    assert transition(live, Failed("closed"), HEALTHY_AFTER_SECONDS, 0.0)[0].failures == 1


def test_a_missing_heartbeat_makes_it_stale_and_reconnects_at_once() -> None:
    state, actions = after(Opened(), Subscribed(), BeatSeen(), BeatOverdue())
    assert (state.name, actions) == ("stale", [Action.CLOSE, Action.ASK_FOR_SWEEP])
    state, actions = transition(state, Tick(), 0.0, 0.0)
    assert (state.name, actions) == ("connecting", [Action.OPEN])


def test_a_connection_that_never_delivered_is_a_failure_like_any_other() -> None:
    state, actions = after(Opened(), Subscribed(), BeatOverdue())
    assert (state.name, state.failures) == ("backing_off", 1)
    assert state.last_failure is not None
    assert state.last_failure.reason == "stale"
    assert actions == [Action.CLOSE, Action.ASK_FOR_SWEEP]


def test_late_news_of_a_connection_given_up_changes_nothing() -> None:
    backing_off, _ = after(Failed("refused"))
    for event in (Opened(), Subscribed(), Failed("closed"), BeatOverdue()):
        assert transition(backing_off, event, 0.0, 0.0) == (backing_off, [])


INPUTS = st.sampled_from(
    [Opened(), Subscribed(), Failed("closed"), Failed("refused"), BeatOverdue(), Renew(), Tick()]
)


@given(st.lists(st.tuples(INPUTS, st.floats(0, 100), st.floats(0, 0.999)), max_size=60))
def test_no_history_leaves_it_stuck(history: list[tuple[Input, float, float]]) -> None:
    state, _ = initial(0.0)
    now = 0.0
    for event, seconds, jitter in history:
        now += seconds
        state, _ = transition(state, event, now, jitter)
        assert state.name == "live" or state.deadline is not None, "every other state has a way out by time"
    stopped, actions = transition(state, Stop(), now, 0.0)
    assert (stopped.name, actions) == ("stopped", [Action.CLOSE])
    assert transition(stopped, Opened(), now, 0.0) == (stopped, [])


DAY_SECONDS = 24 * 3600.0


def renewing() -> tuple[ListenerState, list[Action]]:
    state, _ = after(Opened(), Subscribed())
    return transition(state, Tick(), RENEW_AFTER_SECONDS, 0.0)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_a_live_connection_is_renewed_before_it_is_a_day_old(jitter: float) -> None:
    state, _ = transition(after(Opened())[0], Subscribed(), 0.0, jitter)
    assert state.deadline is not None
    assert 0.9 * RENEW_AFTER_SECONDS < state.deadline <= RENEW_AFTER_SECONDS
    assert transition(state, Tick(), state.deadline - 1, jitter) == (state, [])
    state, actions = transition(state, Tick(), state.deadline, jitter)
    assert (state.name, actions) == ("live", [Action.OPEN_SUCCESSOR])


def test_a_successor_takes_over_when_its_own_rows_flow_and_no_gap_is_reported() -> None:
    state, _ = renewing()
    now = RENEW_AFTER_SECONDS + 1
    state, actions = transition(state, SuccessorSubscribed(), now, 0.0)
    assert (state.name, state.since, actions) == ("live", now, [Action.PROMOTE_SUCCESSOR])
    assert state.deadline == now + RENEW_AFTER_SECONDS, "and is renewed in its turn"


@pytest.mark.parametrize("failed", [SuccessorFailed(Failed("closed")), Tick()])
def test_a_successor_that_fails_or_never_joins_leaves_the_live_connection_alone(failed: Input) -> None:
    state, _ = renewing()
    now = RENEW_AFTER_SECONDS + 60
    state, actions = transition(state, failed, now, 0.0)
    assert (state.name, state.since, actions) == ("live", 0.0, [Action.CLOSE_SUCCESSOR])
    state, actions = transition(state, Tick(), now + RENEWAL_RETRY_SECONDS, 0.0)
    assert actions == [Action.OPEN_SUCCESSOR]


def test_the_attempts_at_renewal_are_several_before_the_day_is_over() -> None:
    state, _ = renewing()
    now, attempts = RENEW_AFTER_SECONDS, 1
    while now < DAY_SECONDS:
        state, actions = transition(state, Tick(), state.deadline or 0.0, 0.0)
        now, attempts = state.deadline or 0.0, attempts + actions.count(Action.OPEN_SUCCESSOR)
    assert attempts > 5


@pytest.mark.parametrize("event", [Failed("closed"), BeatOverdue()])
def test_a_connection_that_fails_during_its_renewal_takes_the_successor_with_it(event: Input) -> None:
    state, actions = transition(renewing()[0], event, RENEW_AFTER_SECONDS + 1, 0.0)
    assert actions == [Action.CLOSE, Action.ASK_FOR_SWEEP]
    assert transition(state, SuccessorSubscribed(), RENEW_AFTER_SECONDS + 2, 0.0)[0] == state


def test_a_new_key_brings_the_renewal_on_at_once() -> None:
    live, _ = after(Opened(), Subscribed())
    state, actions = transition(live, Renew(), 1.0, 0.0)
    assert (state.name, state.renewing, actions) == ("live", True, [Action.OPEN_SUCCESSOR])
    state, actions = transition(state, Renew(), 2.0, 0.0)
    assert actions == [Action.CLOSE_SUCCESSOR, Action.OPEN_SUCCESSOR], "what the old key opened is closed"
    state, actions = transition(state, SuccessorSubscribed(), 3.0, 0.0)
    assert actions == [Action.PROMOTE_SUCCESSOR]


@pytest.mark.parametrize(
    "events", [(), (Opened(),), (Failed("refused"),), (Opened(), Subscribed(), BeatOverdue())]
)
def test_a_new_key_is_tried_at_once_where_nothing_is_live(events: tuple[Input, ...]) -> None:
    state, actions = transition(after(*events)[0], Renew(), 1.0, 0.0)
    assert (state.name, actions) == ("connecting", [Action.CLOSE, Action.OPEN])
    assert transition(after(Stop())[0], Renew(), 1.0, 0.0)[1] == []
