"""A server that sends nonsense between valid messages: nothing crashes, and no valid message is missed.

The long form of this is `python -m tests.chaos.fuzz`.
"""

from __future__ import annotations

import pytest

from tests.chaos.fuzz.odd_answers import ANSWERS
from tests.chaos.fuzz.odd_frames import FRAMES
from tests.chaos.fuzz.run import fuzz

FRAMES_COUNT = 3000
ANSWERS_COUNT = 200


@pytest.mark.parametrize("seed", range(2))
async def test_nonsense_neither_ends_the_listener_nor_makes_it_deaf(seed: int) -> None:
    outcome = await fuzz(frames=FRAMES_COUNT, answers=0, seed=seed)
    assert outcome.crashes == {}
    assert outcome.changes_heard >= FRAMES_COUNT / 1000
    assert set(outcome.frames) == set(FRAMES)
    assert min(outcome.frames.values()) > 0, "every kind was sent"
    assert outcome.malformed_events > FRAMES_COUNT / 2, "what could not be read is counted"
    assert 1 <= outcome.log_lines["change_malformed"] < outcome.malformed_events / 10, "and told now and then"


async def test_nonsense_in_answers_becomes_one_of_our_errors() -> None:
    outcome = await fuzz(frames=0, answers=ANSWERS_COUNT, seed=1)
    assert outcome.crashes == {}
    assert set(outcome.answers) == set(ANSWERS)
    assert min(outcome.answers.values()) > 0
    assert outcome.calls["TransientError"] > 0
    assert outcome.calls["attempt: bad_answer"] > ANSWERS_COUNT / 3
