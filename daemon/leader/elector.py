"""The elector: requests the lease on timer work, which one daemon at a time holds.

`core.leader.lease` interprets the answers. Another daemon takes over with its first request after the lease
has expired or was released. The call also writes the daemon's heartbeat row, so it is made at once when a new
stream connection needs one.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import anyio
import structlog

from priorityd.core.errors import PermanentError, TransientError
from priorityd.core.heartbeat import Heartbeat
from priorityd.core.leader.lease import LEASE_SECONDS
from priorityd.daemon.agent import Agent
from priorityd.daemon.clock import monotonic, since_boot
from priorityd.daemon.database.store import Store
from priorityd.daemon.leader.leadership import Leadership
from priorityd.daemon.leader.metrics import LeaderMetrics
from priorityd.daemon.liveness import Liveness

log = structlog.stdlib.get_logger()

_RELEASE_SECONDS: Final = 2.0


class Elector(Agent):
    """See the module's docstring. The answers are recorded in `leadership`.

    `answered_at` is when the database last answered (monotonic seconds), None if never. `failure` is the
    error of the last call, None if it succeeded.
    """

    name = "elector"

    def __init__(
        self,
        store: Store,
        daemon_id: UUID,
        leadership: Leadership,
        heartbeat: Heartbeat,
        *,
        metrics: LeaderMetrics,
        liveness: Liveness,
    ) -> None:
        super().__init__(liveness)
        self._store = store
        self._daemon_id = daemon_id
        self._leadership = leadership
        self._lease = leadership.lease
        self._heartbeat = heartbeat
        heartbeat.wanted.subscribe(self.ask_now)
        self._wanted = False
        self._was_leader = False
        self.answered_at: float | None = None
        self.failure: TransientError | PermanentError | None = None
        metrics.watch(leadership.is_held)

    def ask_now(self) -> None:
        """Make the next request now."""
        self._wanted = True
        self.wake()

    async def turn(self) -> float:
        """Make the request if it is due."""
        if self._wanted or since_boot() >= self._lease.next_ask_at:
            self._wanted = False
            await self._ask()
        # Wanted meanwhile: the row that was on its way is older than the connection.
        return 0.0 if self._wanted else self._lease.next_ask_at - since_boot()

    async def at_end(self) -> None:
        """Release the lease, so that another daemon need not wait for it to expire."""
        if not self._leadership.is_held():
            return
        try:
            with anyio.move_on_after(_RELEASE_SECONDS):
                await self._store.release_lease(self._daemon_id)
        except (TransientError, PermanentError) as error:
            log.info("lease_release_failed", error=str(error))

    async def _ask(self) -> None:
        sent_at, asked_at, was_leader = monotonic(), since_boot(), self._leadership.is_held()
        try:
            answer = await self._store.hold_lease(self._daemon_id, LEASE_SECONDS)
            self._heartbeat.written(sent_at)
        except (TransientError, PermanentError) as error:
            self.failure = error
            self._lease.failed(since_boot())
            # Once per outage: agents that need the database report that it does not answer.
            write = log.warning if self._lease.failures == 1 else log.debug
            write("lease_renewal_failed", leader=self._leadership.is_held(), error=str(error))
            return
        self.answered_at, self.failure = monotonic(), None
        self._lease.answered(asked_at, held=answer.held, expires_in_seconds=answer.expires_in_seconds)
        is_leader = self._leadership.is_held()
        if is_leader != self._was_leader:
            log.info("leader_changed", leader=is_leader)
        self._was_leader = is_leader
        if is_leader and not was_leader:
            self._leadership.gained.tell()
