"""The lease on timer work (periodic sweeps and resyncs), from the point of view of one daemon.

The database grants it to one daemon at a time, for `LEASE_SECONDS`. Its holder renews it well before that,
and the others ask for it when it may expire. It saves work but protects nothing: timer work computes
everything from the current rows, so losing the lease halfway, or two daemons that both believe they hold it,
do no harm.

The others can tell whether any daemon renews it: if the end of the lease does not move, none does. They would
wait in vain for a lease from before the database's clock was set back.

Times are seconds of one clock that never jumps, and that goes on while the process is stopped or its machine
sleeps. A daemon counts from before its request, so its lease ends before the database grants it to another,
whatever the wall clocks say and however long the answer took. It never stores that it holds the lease, only
until when: after standing still for longer, it is not the leader from its first step on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from priorityd.core.backoff import delay_after

LEASE_SECONDS: Final = 14.0
"""With the margin below, the longest that timer work pauses when the leader is gone."""
ASK_AFTER_SECONDS: Final = 12.0
"""Leaves the holder two seconds for an answer; asking more often would only cost calls."""
_EXPIRY_MARGIN_SECONDS: Final = 0.1
_RENEWED_BY_SECONDS: Final = ASK_AFTER_SECONDS / 2
"""How far the end of a lease must move to count as renewed; an unchanged end seems to move with the time that
answers take."""
_LONGEST_SECONDS: Final = 60.0
"""No daemon asks for more, so a lease that ends later is from before the database's clock was set back."""
_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 10.0
"""There is a leader again within this time after an outage of any length."""


@dataclass(slots=True)
class Lease:
    """What is known about the lease.

    `next_ask_at` is when to ask for it again, and `failures` how many requests in a row have failed.
    `unled_seconds` is for how long no daemon had renewed it at the time of the last answer.
    """

    next_ask_at: float
    failures: int = 0
    unled_seconds: float = 0.0
    _held_until: float = 0.0
    _renewed_at: float | None = None
    _renewed_until: float = 0.0

    def answered(self, asked_at: float, *, held: bool, expires_in_seconds: float) -> None:
        """Take the database's answer to a request sent at `asked_at`."""
        self.failures = 0
        self._see(asked_at, asked_at + expires_in_seconds, held=held)
        if held:
            self._held_until = asked_at + expires_in_seconds
            self.next_ask_at = asked_at + ASK_AFTER_SECONDS
        else:
            self._held_until = 0.0
            # Not only when it may expire, because each call writes a heartbeat row as well.
            self.next_ask_at = asked_at + min(ASK_AFTER_SECONDS, expires_in_seconds + _EXPIRY_MARGIN_SECONDS)

    def failed(self, now: float) -> None:
        """Take note that a request failed; a lease that is held stays so until it expires."""
        self.failures += 1
        self.next_ask_at = now + delay_after(self.failures, _FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)

    def _see(self, asked_at: float, ends_at: float, *, held: bool) -> None:
        is_of_now = asked_at < ends_at < asked_at + _LONGEST_SECONDS
        if held or (is_of_now and ends_at > self._renewed_until + _RENEWED_BY_SECONDS):
            self._renewed_at, self._renewed_until = asked_at, ends_at
        # A lease that was never seen to be renewed counts from the first answer.
        self._renewed_at = asked_at if self._renewed_at is None else self._renewed_at
        self.unled_seconds = asked_at - self._renewed_at

    def is_held(self, now: float) -> bool:
        """Whether this daemon is the leader now."""
        return now < self._held_until
