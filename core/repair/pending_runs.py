"""Requests for work that never runs concurrently: any number of them during a run lead to one more run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from priorityd.core.news import News
from priorityd.core.priorities import Trigger


@dataclass(frozen=True, slots=True)
class PendingRun:
    """Why the work is requested, and the oldest commit that waits for it (by the database's clock)."""

    trigger: Trigger
    oldest_commit: datetime | None = None


class PendingRuns:
    """At most one waiting request; it keeps the trigger of the first. `added` fires for each."""

    def __init__(self) -> None:
        self.added = News()
        self._waiting: PendingRun | None = None

    def add(self, trigger: Trigger, committed_at: datetime | None = None) -> None:
        """Request the work."""
        self._join(trigger, committed_at)
        self.added.tell()

    def put_back(self, request: PendingRun) -> None:
        """The work for this request failed; it waits again, ahead of later ones."""
        later, self._waiting = self._waiting, request
        if later is not None:
            self._join(later.trigger, later.oldest_commit)

    def take(self) -> PendingRun | None:
        """Take the waiting request."""
        request, self._waiting = self._waiting, None
        return request

    @property
    def waiting(self) -> PendingRun | None:
        """The waiting request, without taking it."""
        return self._waiting

    def __bool__(self) -> bool:
        return self._waiting is not None

    def _join(self, trigger: Trigger, committed_at: datetime | None) -> None:
        first = self._waiting or PendingRun(trigger)
        commits = [at for at in (first.oldest_commit, committed_at) if at is not None]
        self._waiting = PendingRun(first.trigger, min(commits, default=None))
