"""The worker: takes due repositories from the work queue and syncs them, a batch per call.

The repositories of a failed call go back to the queue: an error is never about a row. Rows that the
application refuses to change are listed in the answer; they are parked, counted and logged, and the others
are applied. If the application refuses every row, the fault is not in the rows: they wait, and the reason is
logged.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final
from uuid import UUID

import anyio
import structlog

from priorityd.core.apply.work_queue import WorkItem, WorkQueue
from priorityd.core.call_size import CallSize
from priorityd.core.database.answers import RefusedRow, SyncAnswer
from priorityd.core.errors import PermanentError, PriorityError, TransientError
from priorityd.daemon.agent import Agent
from priorityd.daemon.apply.metrics import ApplyMetrics
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.metrics import DatabaseMetrics
from priorityd.daemon.database.store import Store
from priorityd.daemon.liveness import TICK_SECONDS, Liveness
from priorityd.daemon.wakeup import Wakeup

log = structlog.stdlib.get_logger()

RETRY_SECONDS: Final = 1.0
"""The first delay of work that failed for now; the queue doubles it with each attempt."""
LOCKED_RETRY_SECONDS: Final = 0.5
LONGEST_LOCKED_SECONDS: Final = 2.0
"""For locked rows. Most are locked by another daemon's sync of the same change, which holds the other rows of
its batch while it waits for one. So waits are short, and no two daemons wait equally long."""

FIRST_BATCH_SIZE: Final = 100
_AIM_SECONDS: Final = 1.0
"""How long a batch should take: until it ends, the application waits for rows that the batch has written."""

BURST_BATCH_SIZE: Final = 20
FILL_LOOK_SECONDS: Final = 0.01
LONGEST_FILL_SECONDS: Final = 0.1
"""A batch of this size means a burst, so the next batch gets time to fill, as long as each look finds more.
Otherwise 10,000 changes would take hundreds of calls, which would take most of the time."""


class Worker(Agent):
    """See the module's docstring. Adding to the queue sets `wakeup`.

    `all_refused_because`: why the application refuses to change any row; None if it does not, as far as
    known.
    """

    name = "worker"

    def __init__(
        self,
        queue: WorkQueue,
        store: Store,
        *,
        batch_size: int,
        recorder: Recorder,
        metrics: ApplyMetrics,
        calls: DatabaseMetrics,
        liveness: Liveness,
        wakeup: Wakeup,
    ) -> None:
        super().__init__(liveness, wakeup)
        self._queue = queue
        self._store = store
        self._size = CallSize(min(FIRST_BATCH_SIZE, batch_size), batch_size, _AIM_SECONDS)
        self._recorder = recorder
        self._metrics = metrics
        self._calls = calls
        self.all_refused_because: str | None = None

    async def turn(self) -> float:
        """Sync what is due, at most a batch."""
        items = self._queue.take(monotonic(), self._size.rows)
        if not items:
            return self._seconds_to_wait()
        await self._apply(items)
        if len(items) >= BURST_BATCH_SIZE:
            await self._let_batch_fill()
        return 0.0

    def stop(self) -> None:
        """Finish what is waiting, at once, and end."""
        self._queue.drain(monotonic())
        super().stop()

    def has_more(self) -> bool:
        """Whether work is waiting or under way."""
        return self._queue.pending > 0

    def _seconds_to_wait(self) -> float:
        due_at = self._queue.next_due_at()
        return TICK_SECONDS if due_at is None else due_at - monotonic()

    async def _let_batch_fill(self) -> None:
        ends_at = monotonic() + LONGEST_FILL_SECONDS
        waiting = self._queue.waiting
        while not self._stopping and waiting < self._size.rows and monotonic() < ends_at:
            await anyio.sleep(FILL_LOOK_SECONDS)
            before, waiting = waiting, self._queue.waiting
            if waiting == before:
                return

    async def _apply(self, items: list[WorkItem]) -> None:
        try:
            answer = await self._sync(items)
        except (TransientError, PermanentError) as error:
            self._put_back(items, error)
        except PriorityError:
            raise
        except Exception as error:
            log.exception("apply_failed_unexpectedly", repositories=len(items))
            self._calls.call_errors.labels("unknown").inc()
            self._put_back(items, error)
        else:
            self._finish(items, answer)

    async def _sync(self, batch: list[WorkItem]) -> SyncAnswer:
        self._metrics.apply_batch_size.observe(len(batch))
        with self._metrics.apply_seconds.time():
            answer = await self._store.sync([item.key for item in batch], "event")
        self._size.answered(len(batch), answer.database_seconds)
        return answer

    def _finish(self, batch: list[WorkItem], answer: SyncAnswer) -> None:
        committed_at = {item.key: item.committed_at for item in batch if item.committed_at is not None}
        self._recorder.record(answer, "event", committed_at=committed_at)
        now = monotonic()
        locked, waiting = set(answer.locked), self._waiting(answer)
        refused = {row.repository_id: row for row in answer.refused if row.repository_id not in waiting}
        for item in batch:
            if item.key in refused:
                self._park(item, refused[item.key])
        others = [item for item in batch if item.key not in refused]
        self._queue.done([item for item in others if item.key not in locked | waiting], now)
        if locked:
            self._come_back([item for item in others if item.key in locked], now)
        self._queue.retry([item for item in others if item.key in waiting], now, RETRY_SECONDS)

    def _waiting(self, answer: SyncAnswer) -> set[UUID]:
        """The refused repositories that must not be parked: the fault is not in their rows."""
        if answer.all_refused is False or not answer.refused:
            self.all_refused_because = None
        elif answer.all_refused:
            self.all_refused_because = answer.refused[0].reason
            log.error("all_writes_refused", repositories=len(answer.refused), error=self.all_refused_because)
        if self.all_refused_because is not None:
            return _repositories(answer.refused)
        for_now = [row for row in answer.refused if not row.for_good]
        if for_now:
            log.warning("apply_failed", repositories=len(for_now), error=for_now[0].reason)
        return _repositories(for_now)

    def _come_back(self, items: list[WorkItem], now: float) -> None:
        share = 0.5 + random.random() / 2  # noqa: S311 - spreads load, keeps no secret
        self._queue.retry(
            items, now, LOCKED_RETRY_SECONDS * share, longest_seconds=LONGEST_LOCKED_SECONDS * share
        )
        log.info("repositories_locked", repositories=len(items))

    def _park(self, item: WorkItem, row: RefusedRow) -> None:
        self._queue.park(item, row.reason)
        log.error("repository_parked", repository_id=str(item.key), name=row.name, error=row.reason)

    def _put_back(self, batch: list[WorkItem], error: Exception) -> None:
        if isinstance(error, TransientError) and error.reason == "timeout":
            self._size.timed_out(len(batch))
        least = error.least_delay_seconds if isinstance(error, TransientError) else 0.0
        self._queue.retry(batch, monotonic(), RETRY_SECONDS, least_seconds=least)
        log.warning("apply_failed", repositories=len(batch), error=str(error))


def _repositories(rows: Iterable[RefusedRow]) -> set[UUID]:
    return {row.repository_id for row in rows if row.repository_id is not None}
