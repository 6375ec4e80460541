"""Whether this daemon is the leader: set by the elector, read by the agents that do timer work.

Agents ask at the moment of acting, and again before each further step of long work.
"""

from __future__ import annotations

from priorityd.core.leader.lease import Lease
from priorityd.core.news import News
from priorityd.daemon.clock import since_boot


class Leadership:
    """What this daemon knows about the lease. `gained` fires whenever it becomes the leader."""

    def __init__(self) -> None:
        self.lease = Lease(next_ask_at=since_boot())
        self.gained = News()

    def is_held(self) -> bool:
        """Whether this daemon is the leader now; for any thread."""
        return self.lease.is_held(since_boot())
