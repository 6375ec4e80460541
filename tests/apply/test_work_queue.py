"""The work queue, as pure as it is: times are numbers."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from priorityd.core.apply.work_queue import MAX_RETRY_DELAY_SECONDS, WorkItem, WorkQueue
from tests.support.effort import tries

DEBOUNCE, MAX_WAIT = 0.2, 1.0
T0 = datetime(2025, 1, 3, tzinfo=UTC)


def make_queue(capacity: int = 1000) -> WorkQueue:
    return WorkQueue(debounce_seconds=DEBOUNCE, max_wait_seconds=MAX_WAIT, capacity=capacity)


def keys(items: list[WorkItem]) -> set[UUID]:
    return {item.key for item in items}


def test_the_first_change_of_a_quiet_key_is_due_at_once() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 10.0)
    assert queue.next_due_at() == 10.0
    assert keys(queue.take(10.0, 5)) == {key}
    assert queue.pending == 1


def test_changes_right_after_a_run_are_coalesced_until_the_window_is_quiet() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0)
    queue.done(queue.take(0.0, 5), 0.01)
    queue.add(key, 0.05)
    queue.add(key, 0.15)
    assert queue.take(0.3, 5) == []
    assert queue.next_due_at() == pytest.approx(0.15 + DEBOUNCE)
    assert keys(queue.take(0.35, 5)) == {key}
    assert queue.take(5.0, 5) == []


def test_a_flapping_key_waits_no_longer_than_the_maximum() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0)
    queue.done(queue.take(0.0, 5), 0.0)
    runs = []
    for step in range(1, 2001):
        now = step * 0.005
        queue.add(key, now)
        taken = queue.take(now, 5)
        if taken:
            runs.append(now)
            queue.done(taken, now)
    gaps = [b - a for a, b in pairwise(runs)]
    assert len(runs) <= 10 / DEBOUNCE + 5
    assert max(gaps) <= MAX_WAIT + DEBOUNCE + 0.01


def test_a_key_that_changes_while_it_is_processed_runs_once_more() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0)
    taken = queue.take(0.0, 5)
    queue.add(key, 0.1)
    queue.add(key, 0.11)
    assert queue.take(10.0, 5) == []
    queue.done(taken, 10.0)
    again = queue.take(10.0, 5)
    assert keys(again) == {key}
    queue.done(again, 10.0)
    assert queue.pending == 0


def test_the_oldest_commit_of_coalesced_changes_is_kept() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0, committed_at=T0 + timedelta(seconds=5))
    queue.add(key, 0.1, committed_at=T0)
    queue.add(key, 0.1)
    assert queue.take(0.1, 1)[0].committed_at == T0


def test_failed_work_comes_back_later_and_later_and_keeps_its_age() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0, committed_at=T0)
    now, delays = 0.0, []
    for _ in range(9):
        taken = queue.take(now, 5)
        queue.retry(taken, now, 1.0)
        due_at = queue.next_due_at()
        assert due_at is not None
        delays.append(due_at - now)
        now = due_at
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(delays) == MAX_RETRY_DELAY_SECONDS
    assert queue.oldest_pending_seconds(now) == now
    assert queue.take(now, 1)[0].committed_at == T0


def test_a_wait_that_was_asked_for_is_kept() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0)
    queue.retry(queue.take(0.0, 1), 0.0, 1.0, least_seconds=120.0)
    assert queue.next_due_at() == 120.0


def test_a_change_does_not_hurry_a_key_that_waits_for_its_retry() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0)
    queue.retry(queue.take(0.0, 1), 0.0, 5.0)
    queue.add(key, 1.0)
    assert queue.next_due_at() == 5.0


def test_a_key_that_changed_while_its_work_failed_is_kept_once() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0, committed_at=T0)
    taken = queue.take(0.0, 1)
    queue.add(key, 0.1, committed_at=T0 + timedelta(seconds=1))
    queue.retry(taken, 0.2, 1.0)
    assert queue.pending == 1
    again = queue.take(1.2, 5)
    assert [item.committed_at for item in again] == [T0]


def test_a_parked_key_comes_back_with_the_next_change() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0)
    queue.park(queue.take(0.0, 1)[0], "rejected")
    assert (queue.pending, queue.parked) == (0, {key: "rejected"})
    queue.add(key, 1.0)
    assert (queue.pending, queue.parked_count) == (1, 0)
    assert keys(queue.take(1.0, 10)) == {key}


def test_a_key_that_changed_while_it_was_being_parked_runs_again() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0)
    taken = queue.take(0.0, 1)
    queue.add(key, 0.1)
    queue.park(taken[0], "rejected")
    assert queue.parked_count == 0
    assert keys(queue.take(5.0, 10)) == {key}


def test_parked_keys_get_another_chance_longest_parked_first() -> None:
    queue = make_queue()
    parked = [uuid4() for _ in range(3)]
    for key in parked:
        queue.add(key, 0.0)
        queue.park(queue.take(0.0, 1)[0], "rejected")
    assert queue.unpark(1.0, 2) == 2
    assert keys(queue.take(1.0, 10)) == set(parked[:2])
    assert list(queue.parked) == [parked[2]]


def test_an_overflow_drops_the_hints_and_says_so() -> None:
    queue = make_queue(capacity=3)
    assert all(queue.add(uuid4(), 0.0) for _ in range(3))
    assert not queue.add(uuid4(), 0.0)
    assert queue.pending == 0
    assert queue.next_due_at() is None
    assert queue.add(uuid4(), 0.0)


def test_draining_makes_everything_due() -> None:
    queue, waiting, late = make_queue(), uuid4(), uuid4()
    queue.add(waiting, 0.0)
    queue.done(queue.take(0.0, 1), 0.0)
    queue.add(waiting, 0.01)
    queue.drain(0.02)
    queue.add(late, 0.03)
    assert keys(queue.take(0.03, 5)) == {waiting, late}


def test_never_more_than_the_limit_is_taken() -> None:
    queue = make_queue()
    for _ in range(10):
        queue.add(uuid4(), 0.0)
    assert [len(queue.take(0.0, 4)) for _ in range(4)] == [4, 4, 2, 0]


def test_the_due_times_of_a_flapping_key_do_not_pile_up() -> None:
    queue, key = make_queue(), uuid4()
    queue.add(key, 0.0)
    queue.done(queue.take(0.0, 1), 0.0)
    for step in range(100_000):
        queue.add(key, 0.01 + step * 1e-6)
    assert len(queue._heap) < 2000


def test_parked_keys_take_no_more_room_than_waiting_ones() -> None:
    queue, parked = make_queue(capacity=3), [uuid4() for _ in range(5)]
    for key in parked:
        queue.add(key, 0.0)
        queue.park(queue.take(0.0, 1)[0], "rejected")
    assert list(queue.parked) == parked[2:]


class QueueHistories(RuleBasedStateMachine):
    """In any order of events, each change is followed by a run that started after it."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = make_queue(capacity=50)
        self.keys = [UUID(int=number) for number in range(6)]
        self.now = 0.0
        self.owed: set[UUID] = set()
        self.parked: set[UUID] = set()
        self.taken: list[WorkItem] = []
        self.running: set[UUID] = set()

    @rule(number=st.integers(0, 5))
    def change(self, number: int) -> None:
        key = self.keys[number]
        assert self.queue.add(key, self.now)
        self.owed.add(key)
        self.parked.discard(key)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1, 0.25, 1.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(limit=st.integers(1, 4))
    def take(self, limit: int) -> None:
        items = self.queue.take(self.now, limit)
        assert not keys(items) & self.running, "one key is never processed twice at once"
        assert keys(items) <= self.owed, "nothing runs that nobody asked for"
        self.running |= keys(items)
        self.owed -= keys(items)
        self.taken += items

    @rule(outcome=st.sampled_from(["done", "retry", "park"]))
    def finish(self, outcome: str) -> None:
        for item in self.taken[:2]:
            self.running.discard(item.key)
            if outcome == "done":
                self.queue.done([item], self.now)
            elif outcome == "retry":
                self.queue.retry([item], self.now, 1.0)
                self.owed.add(item.key)
            else:
                self.queue.park(item, "rejected")
                if item.key not in self.owed:
                    self.parked.add(item.key)
        self.taken = self.taken[2:]

    @rule()
    def unpark(self) -> None:
        self.queue.unpark(self.now, 2)
        back = self.parked - set(self.queue.parked)
        self.parked -= back
        self.owed |= back

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert self.queue.pending == len(self.owed | self.running)
        assert set(self.queue.parked) == self.parked

    def teardown(self) -> None:
        self.queue.done(self.taken, self.now)
        self.now += 100.0
        rest: set[UUID] = set()
        while items := self.queue.take(self.now, 3):
            rest |= keys(items)
            self.queue.done(items, self.now)
        assert rest == self.owed


QueueHistories.TestCase.settings = settings(max_examples=tries(75), stateful_step_count=40, deadline=None)
TestQueueHistories = QueueHistories.TestCase


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_a_burst_is_handed_out_once_each_in_the_order_it_came(seed: int) -> None:
    queue, rng = make_queue(), random.Random(seed)
    burst = [UUID(int=rng.getrandbits(128), version=4) for _ in range(200)]
    for key in burst:
        queue.add(key, 0.0)
    taken = [item.key for _ in range(20) for item in queue.take(0.0, 17)]
    assert taken == burst


def test_a_wait_that_is_to_stay_short_is_not_doubled_beyond_its_limit() -> None:
    queue = WorkQueue(debounce_seconds=0.2, max_wait_seconds=1.0, capacity=10)
    key, now = uuid4(), 0.0
    queue.add(key, now)
    waits = []
    for _ in range(5):
        queue.retry(queue.take(now, 1), now, 0.5, longest_seconds=4.0)
        due_at = queue.next_due_at()
        assert due_at is not None
        waits.append(due_at - now)
        now = due_at
    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0]
