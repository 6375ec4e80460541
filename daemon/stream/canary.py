"""The canary: a row that the daemon writes and that must come back through its own change stream.

A stream can lose changes while its socket is healthy and its heartbeats are answered. So the daemon writes a
row of its own at an interval, and if that does not come back in time the connection is stale,
whatever the socket says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

import anyio
import structlog

from priorityd.core.errors import KeyRefusedError, PriorityError
from priorityd.core.stream.hints import Hint
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.database.rows import Beat
from priorityd.daemon.stream.metrics import StreamMetrics

log = structlog.stdlib.get_logger()

_FIRST_BEAT_DELAY_SECONDS: Final = 1.0


class HeartbeatStore(Protocol):
    """What the canary needs of the database."""

    async def beat(self, daemon_id: UUID) -> Beat: ...


class Canary:
    """See the module's text.

    `live_since` tells since when the present connection is live (monotonic seconds), None if it is not;
    `on_overdue` is called when the row did not come back. `last_seen_at` is when it last did (monotonic
    seconds).
    """

    def __init__(
        self,
        store: HeartbeatStore,
        daemon_id: UUID,
        *,
        live_since: Callable[[], float | None],
        on_overdue: Callable[[], None],
        metrics: StreamMetrics,
        interval_seconds: float,
        grace_seconds: float,
    ) -> None:
        self._store = store
        self._daemon_id = daemon_id
        self._live_since = live_since
        self._on_overdue = on_overdue
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._grace_seconds = grace_seconds
        self.last_seen_at: float | None = None
        self.lag_seconds: float | None = None
        self._running = anyio.CancelScope()

    async def run(self) -> None:
        """Beat shortly after each time that a connection is live, then at the interval, until `stop`."""
        with self._running:
            while True:
                await anyio.sleep(_FIRST_BEAT_DELAY_SECONDS)
                since = self._live_since()
                while since is not None and self._live_since() == since:
                    await self._beat(since)
                    await anyio.sleep(self._interval_seconds - self._grace_seconds)

    def stop(self) -> None:
        """End `run`."""
        self._running.cancel()

    def see(self, hint: Hint) -> None:
        """A heartbeat row came through the stream."""
        # Without `beat_at` it is a DELETE: filters do not apply to those, so it may be any daemon's row.
        if hint.beat_at is not None:
            self.last_seen_at = monotonic()
            self.lag_seconds = max(0.0, (utc_now() - hint.beat_at).total_seconds())
            self._metrics.lag.set(self.lag_seconds)

    async def _beat(self, live_since: float) -> None:
        sent_at = monotonic()
        try:
            await self._store.beat(self._daemon_id)
        except KeyRefusedError:
            raise
        except PriorityError as error:
            # Not written, so its absence says nothing about the stream.
            log.warning("heartbeat_not_written", error=str(error))
            return
        await anyio.sleep(self._grace_seconds)
        if self._live_since() == live_since and (self.last_seen_at or 0.0) < sent_at:
            self._on_overdue()
