"""The policy of `core/jobs/release_policy.py` in Python, for comparing SQL with it and for simulations."""

from __future__ import annotations

from dataclasses import dataclass

from priorityd.core.priorities import Priority


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits of one job type: whether a high job does, and how many seconds the oldest of the others has.

    None where none of that priority waits.
    """

    high: bool
    medium_seconds: float | None
    low_seconds: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The priority of the next job, and whether that is a promotion."""

    priority: Priority
    promoted: bool


def choose(waiting: Waiting, *, promoted_last: bool, promote_after_seconds: float) -> Choice | None:
    """What to release next, or None when nothing waits. `promoted_last`: the last release was a promotion."""
    first = _first(waiting)
    if first is None:
        return None
    longest = _waited_longest(waiting)
    if longest is None or longest[1] == first or longest[0] < promote_after_seconds or promoted_last:
        return Choice(first, promoted=False)
    return Choice(longest[1], promoted=True)


def _first(waiting: Waiting) -> Priority | None:
    if waiting.high:
        return "high"
    if waiting.medium_seconds is not None:
        return "medium"
    return "low" if waiting.low_seconds is not None else None


def _waited_longest(waiting: Waiting) -> tuple[float, Priority] | None:
    """Seconds and priority of the oldest job that can be overdue."""
    lower: list[tuple[float, Priority]] = []
    if waiting.medium_seconds is not None:
        lower.append((waiting.medium_seconds, "medium"))
    if waiting.low_seconds is not None:
        lower.append((waiting.low_seconds, "low"))
    return max(lower, key=lambda each: each[0], default=None)
