"""How long to wait after consecutive failures: twice as long after each, up to a limit, indefinitely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from priorityd.core.errors import TransientError

_MOST_DOUBLINGS: Final = 10
"""Far beyond any limit; without it the power would overflow in a very long outage."""


def delay_after(failures: int, first_seconds: float, longest_seconds: float) -> float:
    """The wait after so many consecutive failures, in seconds."""
    return min(first_seconds * float(2 ** min(failures - 1, _MOST_DOUBLINGS)), longest_seconds)


@dataclass(slots=True)
class Backoff:
    """Consecutive failures of one piece of work. Times are seconds of one monotonic clock.

    `retry_at` is when to try again; it lies in the past while nothing fails.
    """

    first_seconds: float
    longest_seconds: float
    failures: int = 0
    retry_at: float = 0.0

    def failed(self, now: float, error: Exception | None = None) -> float:
        """The work failed: the seconds to wait, never less than what the server asked for."""
        self.failures += 1
        delay = delay_after(self.failures, self.first_seconds, self.longest_seconds)
        if isinstance(error, TransientError):
            delay = max(delay, error.least_delay_seconds)
        self.retry_at = now + delay
        return delay

    def worked(self) -> None:
        """The work succeeded; the next failure counts as the first."""
        self.failures, self.retry_at = 0, 0.0
