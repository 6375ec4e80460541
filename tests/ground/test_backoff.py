"""Waiting after failures in a row."""

from __future__ import annotations

import gc
import weakref

from priorityd.core.backoff import Backoff, delay_after
from priorityd.core.errors import TransientError
from priorityd.daemon.backoff import retrying


def test_each_failure_doubles_the_wait_up_to_the_longest() -> None:
    assert [delay_after(failures, 1.0, 10.0) for failures in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_an_outage_of_any_length_is_waited_for() -> None:
    assert delay_after(1_000_000, 0.5, 60.0) == 60


def test_a_success_begins_anew() -> None:
    backoff = Backoff(1.0, 60.0)
    assert [backoff.failed(100.0), backoff.failed(100.0)] == [1, 2]
    assert backoff.retry_at == 102
    backoff.worked()
    assert backoff.retry_at == 0
    assert backoff.failed(200.0) == 1


def test_what_the_other_side_asked_for_is_the_least() -> None:
    asked = TransientError("slow down", reason="rate_limited", retry_after_seconds=30)
    assert Backoff(1.0, 10.0).failed(0.0, asked) == 30
    assert Backoff(1.0, 10.0).failed(0.0, ValueError("says nothing about it")) == 1


class _Answer:
    """What the frame of a failed attempt refers to."""


async def test_nothing_of_a_failed_call_is_kept() -> None:
    answers: list[weakref.ref[_Answer]] = []

    def attempt_once() -> None:
        answer = _Answer()
        answers.append(weakref.ref(answer))
        raise TransientError("bad", reason="bad_answer")

    async def call() -> None:
        async for attempt in retrying(2):
            with attempt:
                attempt_once()

    async def fail() -> str:
        try:
            await call()
        except TransientError as error:
            return str(error)
        return "it worked"

    gc.disable()
    try:
        assert await fail() == "bad"
        assert [answer() for answer in answers] == [None, None]
    finally:
        gc.enable()
