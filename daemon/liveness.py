"""Liveness: whether the loops of the daemon still go round.

Each long-running part reports every time it comes round, at least every `TICK_SECONDS` while it waits or
retries. Supabase being down does not stop them, so it never makes the daemon look dead; a blocked event loop
or a part that hangs does.
"""

from __future__ import annotations

from typing import Final

from priorityd.daemon.clock import monotonic

TICK_SECONDS: Final = 5.0
STALLED_AFTER_SECONDS: Final = 60.0
"""Above what one call to Supabase may take with its retries, so that a slow answer is no stall."""


class Liveness:
    """When each part was last seen going round."""

    def __init__(self, stalled_after_seconds: float = STALLED_AFTER_SECONDS) -> None:
        self._stalled_after_seconds = stalled_after_seconds
        self._seen_at: dict[str, float] = {}

    def tick(self, part: str) -> None:
        """The part goes round."""
        self._seen_at[part] = monotonic()

    def ended(self, part: str) -> None:
        """The part ended as it should; it is no longer expected to go round."""
        self._seen_at.pop(part, None)

    def stalled(self) -> list[str]:
        """The parts that have not gone round for `stalled_after_seconds`."""
        limit = monotonic() - self._stalled_after_seconds
        return [part for part, seen_at in self._seen_at.items() if seen_at < limit]
