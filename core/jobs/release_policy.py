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
(`choose_job_priority`); the tests compare it with `tests/support/release_choice.py`.
"""

from __future__ import annotations

from typing import Final

PROMOTE_AFTER_SHARE: Final = 5 / 6
"""The share of the deadline after which a waiting job is overdue."""


def promote_after_seconds(deadline_seconds: float) -> float:
    """After how many seconds of waiting a job with this deadline is overdue."""
    return deadline_seconds * PROMOTE_AFTER_SHARE
