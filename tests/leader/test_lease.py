"""The lease on timer work, against a database that gives it to one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorityd.core.leader.lease import ASK_AFTER_SECONDS, LEASE_SECONDS, Lease
from priorityd.core.status.problems import UNLED_SECONDS


@dataclass
class Database:
    """What the SQL function does, in virtual time."""

    holder: int | None = None
    expires_at: float = 0.0

    def ask(self, who: int, now: float) -> tuple[bool, float]:
        if self.holder in (who, None) or now >= self.expires_at:
            self.holder, self.expires_at = who, now + LEASE_SECONDS
        return self.holder == who, self.expires_at - now


@dataclass
class Question:
    """On its way to the database, and back."""

    asked_at: float
    arrives_at: float
    answered_at: float
    answer: tuple[bool, float] | None = None


@dataclass
class Daemon:
    name: int
    lease: Lease = field(default_factory=lambda: Lease(next_ask_at=0.0))
    question: Question | None = None

    def step(
        self, database: Database, now: float, seconds: tuple[float, float], *, moves: bool = True
    ) -> None:
        """Time has passed; `seconds` is the length of both ways, `moves` whether this daemon is running."""
        question = self.question
        if question is None:
            if moves and now >= self.lease.next_ask_at:
                self.question = question = Question(now, now + seconds[0], now + sum(seconds))
            else:
                return
        if question.answer is None and now >= question.arrives_at:
            question.answer = database.ask(self.name, now)
        if moves and question.answer is not None and now >= question.answered_at:
            held, expires_in = question.answer
            self.lease.answered(question.asked_at, held=held, expires_in_seconds=expires_in)
            self.question = None


def test_whoever_asks_first_has_it_and_keeps_it() -> None:
    database, first, second = Database(), Daemon(1), Daemon(2)
    for tenth in range(600):
        for daemon in (first, second):
            daemon.step(database, tenth / 10, (0.0, 0.0))
        assert (first.lease.is_held(tenth / 10), second.lease.is_held(tenth / 10)) == (True, False)


@pytest.mark.parametrize("last_step", [0.0, 3.3, 9.9, 10.0, 25.0])
def test_another_takes_over_within_fifteen_seconds(last_step: float) -> None:
    database, first, second = Database(), Daemon(1), Daemon(2)
    taken_at = None
    for tenth in range(600):
        now = tenth / 10
        if now <= last_step:
            first.step(database, now, (0.0, 0.0))
        second.step(database, now, (0.0, 0.0))
        if taken_at is None and second.lease.is_held(now):
            taken_at = now
    assert taken_at is not None
    assert last_step < taken_at <= last_step + 15


@given(
    ways=st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4)), min_size=1, max_size=60),
    stops=st.lists(st.tuples(st.integers(0, 2), st.floats(0, 300), st.floats(0, 60)), max_size=5),
)
def test_never_two_believe_in_it_however_slow_answers_are_and_whoever_stands_still(
    ways: list[tuple[float, float]], stops: list[tuple[int, float, float]]
) -> None:
    database, daemons = Database(), [Daemon(name) for name in range(3)]
    for half in range(600):
        now = half / 2
        for daemon in daemons:
            standing = any(
                name == daemon.name and begin <= now < begin + length for name, begin, length in stops
            )
            daemon.step(database, now, ways[half % len(ways)], moves=not standing)
        assert sum(daemon.lease.is_held(now) for daemon in daemons) <= 1


@given(ways=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), min_size=1, max_size=60))
def test_who_stands_by_sees_that_another_renews_it(ways: list[tuple[float, float]]) -> None:
    database, first, second = Database(), Daemon(1), Daemon(2)
    for half in range(600):
        now = half / 2
        for daemon in (first, second):
            daemon.step(database, now, ways[half % len(ways)])
            assert daemon.lease.unled_seconds < UNLED_SECONDS


@pytest.mark.parametrize("expires_in", [0.0, 1800.0])
def test_who_stands_by_sees_that_nobody_renews_it(expires_in: float) -> None:
    """It ends in the far future, of before a clock was set back; or it was given up and nobody gets it."""
    lease = Lease(next_ask_at=0.0)
    lease.answered(0.0, held=False, expires_in_seconds=LEASE_SECONDS)
    while lease.unled_seconds < UNLED_SECONDS:
        now = lease.next_ask_at
        lease.answered(now, held=False, expires_in_seconds=max(0.0, expires_in - now))
        assert now <= 25


def test_a_question_that_fails_is_asked_again_and_takes_nothing_away() -> None:
    lease = Lease(next_ask_at=0.0)
    lease.answered(0.0, held=True, expires_in_seconds=LEASE_SECONDS)
    lease.failed(ASK_AFTER_SECONDS)
    assert lease.is_held(ASK_AFTER_SECONDS)
    assert ASK_AFTER_SECONDS < lease.next_ask_at < LEASE_SECONDS
    assert not lease.is_held(LEASE_SECONDS)
