"""The dispatcher: announces the recorded changes to Inngest.

Changes are claimed, the oldest first, sent and settled as described in `daemon.inngest.delivery`. One that
Inngest refuses permanently is abandoned, with the reason in its row; one that it does not accept for now is
put back, and is due again after the delay.

There is one batch at a time, so the changes of a repository are announced in order. Several daemons may
dispatch at once, each its own batch; a repository's order holds among them, too, except for claims at the
same instant. An outage of Inngest costs one attempt per delay, which grows to 20 s (or as long as Inngest
asks for, up to five minutes), and stops nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import structlog

from priorityd.core.errors import PermanentError, TransientError
from priorityd.core.inngest.outgoing_events import OutgoingEvent, Refused
from priorityd.core.jobs.events import REPOSITORY_SYNC, Job
from priorityd.core.outbox.announcements import (
    RecordedChange,
    announcement_of,
    sync_event_of,
    sync_job_of,
)
from priorityd.core.vocabulary import PriorityForm
from priorityd.daemon.clock import monotonic
from priorityd.daemon.inngest.delivery import Batch, Delivery, NotForNow
from priorityd.daemon.inngest.sender import EventSender
from priorityd.daemon.jobs.ordered_queue import OrderedQueue
from priorityd.daemon.jobs.queueing import JobsNotSentError
from priorityd.daemon.liveness import TICK_SECONDS, Liveness
from priorityd.daemon.outbox.metrics import OutboxMetrics
from priorityd.daemon.outbox.outbox import ClaimedChanges, Depth, Outbox

log = structlog.stdlib.get_logger()

BATCH_SIZE: Final = 500
"""Changes per claim; they make at most twice as many events, in one to three requests."""
DEPTH_SECONDS: Final = 10.0


class Dispatcher(Delivery[RecordedChange]):
    """See the module's docstring. `claim_seconds` is how long a claim lasts if its dispatcher dies.

    `sync_new`: new workspace repositories are synced, by jobs in `queue` if there is one, else by events.
    `failing_since` is when Inngest stopped accepting events (monotonic seconds), None if it accepts them.
    """

    name = "dispatcher"
    defect = "dispatch_failed_unexpectedly"

    def __init__(
        self,
        outbox: Outbox,
        sender: EventSender,
        *,
        claim_seconds: float,
        form: PriorityForm,
        sync_new: bool,
        queue: OrderedQueue | None = None,
        metrics: OutboxMetrics,
        liveness: Liveness,
    ) -> None:
        super().__init__(sender, liveness)
        self._outbox = outbox
        self._claim_seconds = claim_seconds
        self._form: PriorityForm = form
        self._sync_new = sync_new
        self._queue = queue
        self._metrics = metrics
        self._opened = False
        self._all_sent = False
        self._failing: Literal["database", "inngest"] | None = None
        self._measure_at = 0.0
        self.depth: Depth | None = None
        self.failing_since: float | None = None
        self.last_error: str | None = None

    async def turn(self) -> float:
        """Announce a batch, unless the last one failed a moment ago."""
        stopping = self._stopping
        more = monotonic() >= self._retry_at and await self._announce()
        self.tick()
        await self._measure()
        # A turn that started before `stop` may have missed the last recorded changes.
        self._all_sent = stopping and not more
        return 0.0 if more else max(0.0, self._retry_at - monotonic()) or TICK_SECONDS

    @property
    def _retry_at(self) -> float:
        return max(self._backoff.retry_at, self._database_backoff.retry_at)

    def stop(self) -> None:
        """Send what is pending, if it can be sent, and end."""
        self._backoff.retry_at = self._database_backoff.retry_at = 0.0
        super().stop()

    def has_more(self) -> bool:
        """Whether something may be ready to send."""
        return not self._all_sent

    async def _announce(self) -> bool:
        """Send one batch. True when more may be ready to send."""
        try:
            await self.settle_rest()
            await self._open()
            claimed = await self._outbox.claim(BATCH_SIZE, self._claim_seconds)
            if claimed.changes:
                await self.deliver(await self._batch(claimed))
            self._database_backoff.worked()
            if self._failing == "database":
                self._works()
        except (TransientError, PermanentError) as error:
            self._failed(error, "database")
            return False
        return self._failing is None and len(claimed.changes) == BATCH_SIZE

    async def _open(self) -> None:
        if not self._opened:
            opening = await self._outbox.open()
            self._opened = True
            log.info(
                "dispatch_started", from_now_on=opening.from_now_on, database_id=str(opening.database_id)
            )

    async def _batch(self, claimed: ClaimedChanges) -> Batch[RecordedChange]:
        batch, id_ = Batch[RecordedChange](), claimed.database_id
        jobs = {change.id: sync_job_of(change, id_) for change in claimed.changes if self._sync_new}
        try:
            in_order = await self._queue_in_order([job for job in jobs.values() if job])
        except BaseException:
            # The database failed, or this was cancelled: spare others, and itself, the wait for the claims.
            for change in claimed.changes:
                batch.add(change, [announcement_of(change, id_)])
            self._unsettled = batch
            await self.give_back()
            raise
        for change in claimed.changes:
            events, job = [announcement_of(change, id_)], jobs.get(change.id)
            if job is not None and not in_order:
                events.append(sync_event_of(change, job, self._form))
            batch.add(change, events)
        return batch

    async def _queue_in_order(self, jobs: Sequence[Job]) -> bool:
        """Queue these jobs in the database, if possible; returns whether. Refused ones are logged."""
        if self._queue is None or not jobs:
            return False
        try:
            result = await self._queue.queue_jobs(jobs)
        except JobsNotSentError as error:
            if isinstance(error.cause, TransientError):
                raise error.cause from None
            # For example, the table can't hold waiting jobs. The team must get its fresh data nevertheless.
            log.warning("sync_ordering_failed", error=str(error.cause))
            return False
        self._metrics.dispatched.labels(REPOSITORY_SYNC, "sent").inc(len(result.sent))
        self._metrics.dispatched.labels(REPOSITORY_SYNC, "refused").inc(len(result.refused))
        return True

    def on_sent(self, _item: RecordedChange, event: OutgoingEvent) -> None:
        """Count it."""
        self._metrics.dispatched.labels(event.name, "sent").inc()

    def on_refused(self, item: RecordedChange, refused: Refused) -> str:
        """Log it; the change's other events are sent nevertheless."""
        self._metrics.dispatched.labels(refused.event.name, "refused").inc()
        log.error(
            "change_abandoned",
            change_id=item.id,
            repository_id=str(item.repository_id) if item.repository_id else None,
            name=item.repository_name,
            event_name=refused.event.name,
            error=refused.reason,
        )
        return f"{refused.event.name}: {refused.reason}"

    def on_tried(self, batch: Batch[RecordedChange], error: NotForNow | None) -> None:
        """What was not accepted is due again after the delay."""
        if error is None:
            self._works()
            return
        batch.delay_seconds = self._failed(error, "inngest")
        for event in batch.unsent_events:
            self._metrics.dispatched.labels(event.name, "failed").inc()

    async def settle(self, batch: Batch[RecordedChange]) -> None:
        """Mark the changes that were sent, abandon the refused ones, and put back the rest."""
        dispatched, unsent = [each.id for each in batch.sent], [each.id for each in batch.unsent]
        if dispatched:
            await self._outbox.mark_dispatched(dispatched)
        if batch.refused:
            await self._outbox.abandon({change.id: reason for change, reason in batch.refused})
        if unsent:
            await self._outbox.put_back(unsent, batch.error, batch.delay_seconds)
        if dispatched:
            log.info("changes_dispatched", changes=len(dispatched))

    async def _measure(self) -> None:
        # Even while Inngest is down: that is when an operator looks.
        if not self._opened or monotonic() < self._measure_at:
            return
        self._measure_at = monotonic() + DEPTH_SECONDS
        try:
            self.depth = await self._outbox.depth()
        except (TransientError, PermanentError) as error:
            log.warning("outbox_count_failed", error=str(error))
            return
        self._metrics.pending.set(self.depth.pending)
        self._metrics.oldest.set(self.depth.oldest_seconds)
        if self.depth.pending == 0:
            self._works()  # another daemon has sent what failed here

    def _works(self) -> None:
        self._backoff.worked()
        self._database_backoff.worked()
        self._failing, self.failing_since, self.last_error = None, None, None

    def _failed(self, error: NotForNow | PermanentError, where: Literal["database", "inngest"]) -> float:
        self._failing = where
        backoff = self._backoff if where == "inngest" else self._database_backoff
        delay = backoff.failed(monotonic(), error)
        self.failing_since = (self.failing_since or monotonic()) if where == "inngest" else None
        self.last_error = str(error)
        log.warning("dispatch_failed", error=str(error), retry_in_seconds=round(delay, 1))
        return delay
