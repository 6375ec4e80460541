"""Which priority the next ordered job of a type is taken from.

Two promises can conflict: no job goes before a waiting one of a higher priority, and every job is done before
its deadline, by default within a day. While nothing is overdue, the first is kept without exception.

A job is *overdue* when five sixths of its deadline have passed. The last sixth is for what is still ahead of
it: other overdue jobs, the workers' queue, and the work itself. An overdue job is promoted: it goes before
higher ones, the longest waiting first, whatever its own priority (a medium one that has waited longer than
the overdue low one needs no promotion: it is first anyway).

But this never happens twice in a row while a higher one waits. Otherwise a day's backlog that becomes overdue
all at once would stop the paying teams' jobs until it is worked off. So neither promise can be broken by the
other alone, as long as the load of each is below half of what the workers can do:

- While there are n overdue jobs that have waited longer, at most 2n + 1 jobs are released before this one. If
  such jobs come more slowly than every second release, the number of overdue ones is bounded however many
  high ones wait.
- At least every second release is by priority. If high jobs come more slowly than that, they wait no longer
  than a bounded number of releases however many are overdue.

High jobs are never promoted, since nothing goes before them but promotions. PostgreSQL applies this
(`choose_job_priority`); the copy here explains it, and the tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from priorityd.core.priorities import Priority

PROMOTE_AFTER_SHARE: Final = 5 / 6
"""The share of the deadline after which a waiting job is overdue."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits of one job type: whether a high job does, and how long the oldest of the others has waited.

    Seconds are None where no job of that priority waits.
    """

    high: bool
    medium_seconds: float | None
    low_seconds: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The priority of the next job, and whether that is a promotion."""

    priority: Priority
    promoted: bool


def promote_after_seconds(deadline_seconds: float) -> float:
    """After how many seconds of waiting a job with this deadline is overdue."""
    return deadline_seconds * PROMOTE_AFTER_SHARE


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
