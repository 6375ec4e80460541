"""The trimmer: deletes recorded changes older than the retention, page by page.

Only the leader does this; two daemons at once would do no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from priorityd.core.errors import PermanentError, TransientError
from priorityd.daemon.agent import Agent
from priorityd.daemon.clock import monotonic
from priorityd.daemon.liveness import TICK_SECONDS, Liveness
from priorityd.daemon.outbox.outbox import Outbox

log = structlog.stdlib.get_logger()

INTERVAL_SECONDS: Final = 3600.0
PAGE_SIZE: Final = 5000
PAUSE_SECONDS: Final = 0.5
"""Between two pages, so that the first trimming of a long trail leaves the database time for others."""


class Trimmer(Agent):
    """See the module's docstring. `keep_days` is the retention."""

    name = "trimmer"

    def __init__(
        self, store: Outbox, keep_days: int, *, is_leader: Callable[[], bool], liveness: Liveness
    ) -> None:
        super().__init__(liveness)
        self._store = store
        self._keep_days = keep_days
        self._is_leader = is_leader
        self._next_at = monotonic()

    async def turn(self) -> float:
        """Trim at the interval while this daemon leads."""
        if monotonic() >= self._next_at and self._is_leader():
            await self._trim()
            self._next_at = monotonic() + INTERVAL_SECONDS
        return max(0.0, self._next_at - monotonic()) or TICK_SECONDS

    async def _trim(self) -> None:
        trimmed, after = 0, 0
        try:
            while not self._stopping and self._is_leader():
                self.tick()
                page = await self._store.trim(self._keep_days, after, PAGE_SIZE)
                trimmed += page.trimmed
                if page.next_after is None:
                    break
                after = page.next_after
                await self._wakeup.wait(PAUSE_SECONDS)
        except (TransientError, PermanentError) as error:
            log.warning("trim_failed", error=str(error))
        if trimmed:
            log.info("changes_trimmed", changes=trimmed, keep_days=self._keep_days)
