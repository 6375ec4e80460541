"""The trimmer: takes changes that are older than the retention off the record, a page at a time.

With several daemons one of them does it; two at once would do no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import structlog

from priorityd.core.errors import PermanentError, TransientError
from priorityd.daemon.clock import monotonic
from priorityd.daemon.liveness import BEAT_SECONDS, Progress
from priorityd.daemon.outbox.outbox import TrimmedPage
from priorityd.daemon.wakeup import Wakeup

log = structlog.stdlib.get_logger()

INTERVAL_SECONDS: Final = 3600.0
PAGE_SIZE: Final = 5000
PAUSE_SECONDS: Final = 0.5
"""Between two pages: the first trimming of a long trail leaves the database time for others."""


class TrimStore(Protocol):
    """What the trimmer needs of the database."""

    async def trim(self, keep_days: int, after: int, limit: int) -> TrimmedPage: ...


class Trimmer:
    """See the module's text. `keep_days` is the retention."""

    def __init__(
        self, store: TrimStore, keep_days: int, *, is_leader: Callable[[], bool], progress: Progress
    ) -> None:
        self._store = store
        self._keep_days = keep_days
        self._is_leader = is_leader
        self._progress = progress
        self._wakeup = Wakeup()
        self._stopping = False

    def stop(self) -> None:
        """End `run` after the page that is under way."""
        self._stopping = True
        self._wakeup.set()

    async def run(self) -> None:
        """Trim at the interval while this daemon leads, until `stop`."""
        next_at = monotonic()
        while not self._stopping:
            self._progress.beat("trimmer")
            if monotonic() >= next_at and self._is_leader():
                await self._trim()
                next_at = monotonic() + INTERVAL_SECONDS
            await self._wakeup.wait(min(BEAT_SECONDS, max(0.0, next_at - monotonic()) or BEAT_SECONDS))
        self._progress.ended("trimmer")

    async def _trim(self) -> None:
        trimmed, after = 0, 0
        try:
            while not self._stopping:
                self._progress.beat("trimmer")
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
