"""When a heartbeat row must be back."""

from __future__ import annotations

import pytest

from priorityd.core.heartbeat import Heartbeat


@pytest.fixture
def heartbeat() -> Heartbeat:
    """Of a connection that has been live since 4."""
    heartbeat = Heartbeat(grace_seconds=10.0)
    heartbeat.connected(4.0)
    return heartbeat


def test_a_row_that_was_not_written_is_not_due(heartbeat: Heartbeat) -> None:
    assert heartbeat.due_at is None


def test_a_row_must_come_back_within_the_grace(heartbeat: Heartbeat) -> None:
    heartbeat.written(5.0)
    assert heartbeat.due_at == 15.0


def test_another_row_does_not_put_off_the_first(heartbeat: Heartbeat) -> None:
    heartbeat.written(5.0)
    heartbeat.written(6.0)
    assert heartbeat.due_at == 15.0


def test_a_row_sent_before_the_connection_was_live_may_have_missed_it(heartbeat: Heartbeat) -> None:
    heartbeat.written(3.9)
    assert heartbeat.due_at is None
    heartbeat.written(5.0)
    heartbeat.connected(7.0)
    assert heartbeat.due_at is None


def test_a_row_that_came_back_is_due_no_more_until_the_next_is_written(heartbeat: Heartbeat) -> None:
    heartbeat.written(5.0)
    heartbeat.seen(5.3, lag_seconds=0.2)
    assert (heartbeat.due_at, heartbeat.seen_at, heartbeat.lag_seconds) == (None, 5.3, 0.2)
    heartbeat.written(17.0)
    assert heartbeat.due_at == 27.0


def test_a_row_that_came_back_before_the_call_was_answered_is_not_due(heartbeat: Heartbeat) -> None:
    heartbeat.seen(5.1, lag_seconds=0.1)
    heartbeat.written(5.0)
    assert heartbeat.due_at is None
    heartbeat.written(17.0)
    assert heartbeat.due_at == 27.0


def test_each_connection_wants_a_row() -> None:
    heartbeat, wanted = Heartbeat(), []
    heartbeat.wanted.subscribe(lambda: wanted.append(1))
    heartbeat.connected(4.0)
    assert wanted
