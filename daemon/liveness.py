"""Liveness: whether the loops of the daemon still turn.

Each long-running part reports on every turn, at least every `TICK_SECONDS` while it waits or retries. An
outage of Supabase does not stop them, so it never makes the daemon look dead; a blocked event loop or a
hanging part does.
"""

from __future__ import annotations

from typing import Final

from priorityd.daemon.clock import monotonic

TICK_SECONDS: Final = 5.0
STALLED_AFTER_SECONDS: Final = 60.0
"""Longer than a call to Supabase may take with its retries: a slow answer must not look like a stall."""


class Liveness:
    """When each part last reported."""

    def __init__(self, stalled_after_seconds: float = STALLED_AFTER_SECONDS) -> None:
        self._stalled_after_seconds = stalled_after_seconds
        self._seen_at: dict[str, float] = {}

    def tick(self, part: str) -> None:
        """The part is alive."""
        self._seen_at[part] = monotonic()

    def ended(self, part: str) -> None:
        """The part has ended regularly; it is no longer expected to report."""
        self._seen_at.pop(part, None)

    def stalled(self) -> list[str]:
        """The parts that have not reported for `stalled_after_seconds`."""
        limit = monotonic() - self._stalled_after_seconds
        return [part for part, seen_at in self._seen_at.items() if seen_at < limit]
