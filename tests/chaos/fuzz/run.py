"""One run of the fuzzer."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from structlog.typing import EventDict, WrappedLogger

from priorityd.daemon import backoff
from tests.chaos.fuzz.answers import send_answers
from tests.chaos.fuzz.frames import send_frames
from tests.chaos.fuzz.outcome import Outcome


async def fuzz(*, frames: int, answers: int, seed: int) -> Outcome:
    """Send this number of frames and answers."""
    outcome, started_at = Outcome(seed), time.monotonic()
    with _without_waiting(), _counted_logs(outcome):
        if frames:
            await send_frames(frames, random.Random(seed), outcome)
        if answers:
            await send_answers(answers, random.Random(seed + 1), outcome)
    if outcome.log_lines["change_handling_failed"]:
        outcome.crashed(f"change_handling_failed: {outcome.log_lines['change_handling_failed']}")
    outcome.seconds = round(time.monotonic() - started_at, 1)
    return outcome


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Shorten the store's retries: each failure would make it wait for seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backoff, "_JITTERED", lambda _: 0.0)
        yield


@contextmanager
def _counted_logs(outcome: Outcome) -> Iterator[None]:
    """Count log lines instead of writing them; the client's go to the daemon's own handler."""

    def count(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        outcome.log_lines[str(event["event"])] += 1
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[count], cache_logger_on_first_use=False)
    client = logging.getLogger("realtime")
    propagate, client.propagate = client.propagate, False
    client.addHandler(logging.NullHandler())
    try:
        yield
    finally:
        client.propagate = propagate
        structlog.configure(**before)
