"""Tells rows that nobody announced from rows that a sweep merely found first.

A sweep that its timer starts may come between a change and its announcement, or find a row while the worker
is putting it right. Neither means that the stream loses changes. So what such a sweep finds is under
suspicion only, and is drift when no announcement has come within `GRACE_SECONDS` before or after.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from priorityd.core.stream.hints import Hint

GRACE_SECONDS: Final = 6.0
"""10,000 rows of one transaction were seen to come 5.5 s after their commit."""
MAX_HEARD: Final = 50_000


class DriftJudge:
    """See the module's text."""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        self._heard_at: OrderedDict[UUID, float] = OrderedDict()
        # When a removal was announced that named nobody: it may be the one of any suspect.
        self._unnamed_at = float("-inf")
        self._suspects: OrderedDict[UUID, float] = OrderedDict()

    def announced(self, hint: Hint, now: float) -> None:
        """The stream has brought a change."""
        for repository_id in hint.repository_ids:
            self._suspects.pop(repository_id, None)
            self._heard_at[repository_id] = now
            self._heard_at.move_to_end(repository_id)
        if hint.needs_sweep:
            self._suspects.clear()
            self._unnamed_at = now
        self._forget(now)

    def suspect(self, repository_ids: Iterable[UUID], now: float) -> None:
        """A sweep has found these wrong without having been asked to look."""
        self._forget(now)
        if now - self._unnamed_at <= self._grace_seconds:
            return
        for repository_id in repository_ids:
            if repository_id not in self._heard_at:
                self._suspects[repository_id] = now

    def confirmed(self, now: float) -> int:
        """How many suspects nobody has announced in time; each is told once."""
        count = 0
        while self._suspects and now - next(iter(self._suspects.values())) > self._grace_seconds:
            self._suspects.popitem(last=False)
            count += 1
        return count

    @property
    def suspects(self) -> int:
        """How many are still under suspicion."""
        return len(self._suspects)

    def _forget(self, now: float) -> None:
        while self._heard_at and (
            len(self._heard_at) > MAX_HEARD or now - next(iter(self._heard_at.values())) > self._grace_seconds
        ):
            self._heard_at.popitem(last=False)
