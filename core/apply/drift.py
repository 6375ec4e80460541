"""Tells rows whose change the stream did not deliver from rows that a sweep merely found first.

A periodic sweep may run between a change and its announcement, or find a row that the worker is just
correcting; and many wrong rows were never announced, because no membership row changed. So what such a sweep
finds is suspect only if an earlier sweep had found everything right while the stream was live, and the stream
has been live, or silently deaf, ever since. A suspect is reported when no announcement arrives within
`GRACE_SECONDS` before or after. A change that arrives later than that counts as one that never does.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from priorityd.core.stream.hints import Hint

GRACE_SECONDS: Final = 40.0
"""10,000 rows of one transaction arrived 5.5 s after their commit; an overloaded server delivers tens of
seconds late."""
UNNAMED_SECONDS: Final = 6.0
"""How long a removal that names no repository may concern any row."""
MAX_HEARD: Final = 50_000
MAX_SUSPECTS: Final = 10_000


class DriftJudge:
    """See the module's docstring."""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        self._heard_at: OrderedDict[UUID, float] = OrderedDict()
        # When a removal that named no repository was last announced: it may concern any suspect.
        self._unnamed_at = float("-inf")
        self._suspects: OrderedDict[UUID, tuple[float, float]] = OrderedDict()

    def announced(self, hint: Hint, now: float) -> None:
        """The stream has delivered a change."""
        for repository_id in hint.repository_ids:
            self._suspects.pop(repository_id, None)
            self._heard_at[repository_id] = now
            self._heard_at.move_to_end(repository_id)
        if hint.needs_sweep:
            self._suspects.clear()
            self._unnamed_at = now
        self._forget(now)

    def suspect(self, repository_ids: Iterable[UUID], now: float, right_at: float) -> None:
        """A periodic sweep has found these wrong; they were right at `right_at`."""
        self._forget(now)
        if now - self._unnamed_at <= UNNAMED_SECONDS:
            return
        for repository_id in repository_ids:
            known = repository_id in self._heard_at or repository_id in self._suspects
            if not known and len(self._suspects) < MAX_SUSPECTS:
                self._suspects[repository_id] = now, right_at

    def confirmed(self, now: float, whole_since: float | None) -> list[tuple[UUID, float]]:
        """The suspects that were not announced in time, and when each was right; each is returned once.

        `whole_since` is the time since which the stream has been live without a visibly failed connection,
        None if it is not live: what a failed connection would have delivered does not count as lost.
        """
        confirmed = []
        while self._suspects and now - next(iter(self._suspects.values()))[0] > self._grace_seconds:
            repository_id, (_, right_at) = self._suspects.popitem(last=False)
            if whole_since is not None and whole_since <= right_at:
                confirmed.append((repository_id, right_at))
        return confirmed

    @property
    def suspects(self) -> int:
        """How many are still under suspicion."""
        return len(self._suspects)

    def _forget(self, now: float) -> None:
        while self._heard_at and (
            len(self._heard_at) > MAX_HEARD or now - next(iter(self._heard_at.values())) > self._grace_seconds
        ):
            self._heard_at.popitem(last=False)
