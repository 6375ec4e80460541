"""When a periodic sweep may trust the sums."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

from core.answers import SyncAnswer
from core.sum_check import SWEEPS_WITHOUT, SumCheck


def answer(found: tuple[UUID, ...] | None, *, compared: bool, changed: int = 0) -> SyncAnswer:
    return SyncAnswer(
        examined=changed,
        workspace_repos=0,
        tracked_only_repos=changed,
        untracked=len(found or ()),
        changed=changed,
        changes=(),
        applied_at=datetime(2025, 1, 3, tzinfo=UTC),
        untracked_repository_ids=found,
        compared=compared,
    )


def test_the_first_sweep_compares_and_the_next_is_given_what_it_found() -> None:
    check, untracked = SumCheck(), (uuid4(),)
    assert check.untracked() is None
    check.learn(None, answer(untracked, compared=True))
    assert check.untracked() == untracked
    check.learn(untracked, answer(untracked, compared=False))
    assert check.untracked() == untracked


def test_too_many_to_carry_means_comparing() -> None:
    check = SumCheck()
    check.learn(None, answer(None, compared=True))
    assert check.untracked() is None


def test_what_was_done_in_vain_is_left_for_a_while() -> None:
    check = SumCheck()
    check.learn((), answer((), compared=True))
    assert [check.untracked() for _ in range(SWEEPS_WITHOUT)] == [None] * SWEEPS_WITHOUT
    assert check.untracked() == ()


def test_comparing_because_something_was_wrong_was_not_in_vain() -> None:
    check, untracked = SumCheck(), (uuid4(),)
    check.learn((), answer((), compared=True, changed=1))
    assert check.untracked() == ()
    check.learn((), answer(untracked, compared=True))
    assert check.untracked() == untracked
