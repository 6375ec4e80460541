"""What a sweep finds is drift only if no change announces it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from priorityd.core.apply.drift import MAX_HEARD, DriftJudge
from priorityd.core.stream.hints import WORKSPACE_REPOSITORIES, Hint


def hint(*repository_ids: UUID) -> Hint:
    """A change that names these, or without any a removal that names no repository."""
    at = datetime(2025, 1, 3, tzinfo=UTC)
    operation = "INSERT" if repository_ids else "DELETE"
    return Hint(WORKSPACE_REPOSITORIES, operation, at, repository_ids, needs_sweep=not repository_ids)


def test_what_nobody_announces_is_drift_and_told_once() -> None:
    judge = DriftJudge(6)
    wrong = [uuid4(), uuid4()]
    judge.suspect(wrong, 100, 90)
    assert judge.confirmed(106, 0) == []
    assert judge.suspects == 2
    assert judge.confirmed(106.1, 0) == [(each, 90) for each in wrong]
    assert judge.confirmed(200, 0) == []


@pytest.mark.parametrize("whole_since", [None, 91])
def test_nobody_is_told_of_whose_change_a_connection_that_ended_may_have_had(
    whole_since: float | None,
) -> None:
    judge = DriftJudge(6)
    judge.suspect([uuid4()], 100, 90)
    assert judge.confirmed(110, whole_since) == []
    assert judge.suspects == 0


def test_an_announcement_shortly_before_or_after_clears_a_suspect() -> None:
    judge, before, after, other = DriftJudge(6), uuid4(), uuid4(), uuid4()
    judge.announced(hint(before), 99)
    judge.suspect([before, after, other], 100, 90)
    judge.announced(hint(after), 103)
    assert judge.confirmed(110, 0) == [(other, 90)]


def test_a_suspect_that_is_found_again_keeps_nobody_waiting() -> None:
    judge, again, other = DriftJudge(6), uuid4(), uuid4()
    judge.suspect([again, other], 100, 90)
    judge.suspect([again], 105, 101)
    assert judge.confirmed(107, 0) == [(again, 90), (other, 90)]


def test_an_announcement_long_before_clears_nobody() -> None:
    judge, repository = DriftJudge(6), uuid4()
    judge.announced(hint(repository), 90)
    judge.suspect([repository], 100, 90)
    assert judge.confirmed(110, 0) == [(repository, 90)]


def test_a_removal_that_names_nobody_may_be_that_of_any_suspect() -> None:
    judge = DriftJudge(6)
    judge.suspect([uuid4()], 100, 90)
    judge.announced(hint(), 101)
    judge.suspect([uuid4()], 102, 90)
    assert judge.confirmed(120, 0) == []
    judge.suspect([later := uuid4()], 120, 90)
    assert judge.confirmed(130, 0) == [(later, 90)]


def test_what_was_heard_is_forgotten() -> None:
    judge = DriftJudge(6)
    for n in range(MAX_HEARD + 100):
        judge.announced(hint(uuid4()), n / 100_000)
    assert len(judge._heard_at) == MAX_HEARD
    judge.announced(hint(uuid4()), 100)
    assert len(judge._heard_at) == 1
