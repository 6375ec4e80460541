"""What the runs of a lost job say about it.

Inngest's names for a run's status: `pkg/enums/runstatus_enumer.go` of its open-source server, 253303c.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

RunStatus: TypeAlias = Literal["running", "completed", "failed", "cancelled"]

_NOT_OVER = frozenset({"running", "scheduled", "queued", "overflowed", "paused", "sleeping", "waiting"})


def status_of_runs(words: Iterable[str]) -> RunStatus | None:
    """The job's status, from those of its runs; None if there is no run, or one with an unknown status.

    An event may start several functions: the job is running while any is, and completed only if all are.
    """
    known = {word.lower() for word in words} - {"skipped"}
    if known & _NOT_OVER:
        return "running"
    if not known or known - {"completed", "failed", "cancelled"}:
        return None
    if "failed" in known:
        return "failed"
    return "cancelled" if "cancelled" in known else "completed"
