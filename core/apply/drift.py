"""Tells rows whose change the stream did not bring from rows that a sweep merely found first.

A sweep that its timer starts may come between a change and its announcement, or find a row while the worker
is putting it right; and many rows that are wrong were never announced, because no membership's row has
changed. So what such a sweep finds is under suspicion only if an earlier sweep had seen everything right
while the stream was live, and the stream has been live, or deaf without a word, ever since. It is told when
no announcement has come within `GRACE_SECONDS` before or after. Whether a change comes later than that or
never can't be told: both are too late.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from priorityd.core.stream.hints import Hint

GRACE_SECONDS: Final = 40.0
"""10,000 rows of one transaction were seen to come 5.5 s after their commit, and a server with more to do
than it can to deliver tens of seconds late."""
UNNAMED_SECONDS: Final = 6.0
"""For so long a removal that names nobody may be that of any row."""
MAX_HEARD: Final = 50_000
MAX_SUSPECTS: Final = 10_000


class DriftJudge:
    """See the module's text."""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        self._heard_at: OrderedDict[UUID, float] = OrderedDict()
        # When a removal was announced that named nobody: it may be the one of any suspect.
        self._unnamed_at = float("-inf")
        self._suspects: OrderedDict[UUID, tuple[float, float]] = OrderedDict()

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

    def suspect(self, repository_ids: Iterable[UUID], now: float, right_at: float) -> None:
        """A sweep has found these wrong without having been asked to look, and they were right at
        `right_at`."""
        self._forget(now)
        if now - self._unnamed_at <= UNNAMED_SECONDS:
            return
        for repository_id in repository_ids:
            if repository_id not in self._heard_at and len(self._suspects) < MAX_SUSPECTS:
                self._suspects[repository_id] = now, right_at

    def confirmed(self, now: float, whole_since: float | None) -> list[tuple[UUID, float]]:
        """The suspects that nobody has announced in time, and when each was right; each is told once.

        `whole_since` is since when the stream has been live without a connection that ended with a word, None
        if it is not: what one that ended would have brought is nobody's loss.
        """
        told = []
        while self._suspects and now - next(iter(self._suspects.values()))[0] > self._grace_seconds:
            repository_id, (_, right_at) = self._suspects.popitem(last=False)
            if whole_since is not None and whole_since <= right_at:
                told.append((repository_id, right_at))
        return told

    @property
    def suspects(self) -> int:
        """How many are still under suspicion."""
        return len(self._suspects)

    def _forget(self, now: float) -> None:
        while self._heard_at and (
            len(self._heard_at) > MAX_HEARD or now - next(iter(self._heard_at.values())) > self._grace_seconds
        ):
            self._heard_at.popitem(last=False)
