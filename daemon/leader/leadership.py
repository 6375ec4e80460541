"""Whether timer work is this daemon's: the elector finds it out, and whoever works by timer reads it here."""

from __future__ import annotations

from priorityd.core.leader.lease import Lease
from priorityd.core.news import News
from priorityd.daemon.clock import monotonic


class Leadership:
    """What this daemon knows of the lease. `gained` is told whenever timer work has become its own."""

    def __init__(self) -> None:
        self.lease = Lease(next_ask_at=monotonic())
        self.gained = News()

    def is_held(self) -> bool:
        """Whether timer work is this daemon's now."""
        return self.lease.is_held(monotonic())
