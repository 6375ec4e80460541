"""The heartbeat row: the daemon writes it, and it must come back through the daemon's own change stream.

A stream can lose changes while its socket is healthy and its heartbeats are answered. So if a row written
while a connection is live does not come back in time, the connection is stale, whatever the socket says. A
row that could not be written says nothing about the stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from priorityd.core.news import News

GRACE_SECONDS: Final = 10.0
"""How long the row may take to come back; the stream's own delay is below a second."""


@dataclass(slots=True)
class Heartbeat:
    """Tracks the row. Times are seconds of one monotonic clock.

    `wanted` fires when a row would show whether a new connection delivers. `seen_at` is when a row last came
    back and `lag_seconds` its age then; both are None before the first.
    """

    grace_seconds: float = GRACE_SECONDS
    seen_at: float | None = None
    lag_seconds: float | None = None
    wanted: News = field(default_factory=News)
    _connected_at: float = math.inf
    _awaited_since: float | None = None

    def connected(self, now: float) -> None:
        """A connection is live: it may have missed what was written before."""
        self._connected_at, self._awaited_since = now, None
        self.wanted.tell()

    def written(self, sent_at: float) -> None:
        """A row was written by a call sent at that time.

        The stream may be quicker than the call's answer: then the row is back already.
        """
        is_back = self.seen_at is not None and self.seen_at >= sent_at
        if self._awaited_since is None and sent_at >= self._connected_at and not is_back:
            self._awaited_since = sent_at

    def seen(self, now: float, lag_seconds: float) -> None:
        """A row came through the stream."""
        self._awaited_since, self.seen_at, self.lag_seconds = None, now, lag_seconds

    @property
    def due_at(self) -> float | None:
        """When a row must be back; None if none is on its way."""
        return None if self._awaited_since is None else self._awaited_since + self.grace_seconds
