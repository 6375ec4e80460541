"""The dispatcher: announces the changes on record to Inngest.

Claim the oldest pending changes, send their events, write down what became of each:

    claimed ──all its events accepted──▶ dispatched
       ├──────an event refused for good─▶ abandoned, with the reason in the row
       └──────not for now───────────────▶ put back, due again after the delay

Nothing is lost: a change is marked only after Inngest has accepted its events. What was sent but not marked
(the process died, the answer or the database was lost) is sent again under the same ids, by which Inngest
ignores the repeat for 24 hours.

One batch is under way at a time, so the changes of a repository are announced in their order; several daemons
may dispatch at once, each its own batch, and the order of a repository holds among them but for claims in the
same instant. Inngest being down costs one attempt per delay, which grows to a minute, and stops nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol

import anyio
import structlog

from priorityd.core.backoff import Backoff
from priorityd.core.errors import KeyRefusedError, PermanentError, TransientError
from priorityd.core.inngest.outgoing_events import OutgoingEvent, Refused
from priorityd.core.outbox.announcements import RecordedChange, events_of
from priorityd.core.vocabulary import PriorityForm
from priorityd.daemon.agent import Agent
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.liveness import BEAT_SECONDS, Progress
from priorityd.daemon.outbox.metrics import OutboxMetrics
from priorityd.daemon.outbox.outbox import ClaimedChanges, Depth, Opening

log = structlog.stdlib.get_logger()

BATCH_SIZE: Final = 500
"""Changes per claim; at most twice as many events, in one to three requests."""
DEPTH_SECONDS: Final = 15.0
_FIRST_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 60.0
_RELEASE_SECONDS: Final = 3.0
"""For giving claims back when the process is told to end in the middle of a batch."""


class OutboxStore(Protocol):
    """What the dispatcher needs of the database."""

    async def open(self) -> Opening: ...

    async def claim(self, limit: int, seconds: float) -> ClaimedChanges: ...

    async def mark_dispatched(self, ids: Sequence[int]) -> None: ...

    async def abandon(self, reasons: dict[int, str]) -> None: ...

    async def put_back(self, ids: Sequence[int], error: str | None, delay_seconds: float) -> None: ...

    async def depth(self) -> Depth: ...


class Sender(Protocol):
    """What the dispatcher needs of Inngest."""

    async def send(
        self, events: Sequence[OutgoingEvent], on_sent: Callable[[Sequence[OutgoingEvent]], None]
    ) -> list[Refused]: ...


@dataclass(slots=True)
class _Outcome:
    """What became of a batch, until the database knows it."""

    dispatched: list[int] = field(default_factory=list)
    abandoned: dict[int, str] = field(default_factory=dict)
    put_back: list[int] = field(default_factory=list)
    error: str | None = None
    delay_seconds: float = 0.0


class Dispatcher(Agent):
    """See the module's text. `claim_seconds` is how long a claim of a dispatcher that died lasts."""

    name = "dispatcher"

    def __init__(
        self,
        outbox: OutboxStore,
        sender: Sender,
        *,
        claim_seconds: float,
        form: PriorityForm,
        sync_new: bool,
        metrics: OutboxMetrics,
        progress: Progress,
    ) -> None:
        super().__init__(progress)
        self._outbox = outbox
        self._sender = sender
        self._claim_seconds = claim_seconds
        self._form: PriorityForm = form
        self._sync_new = sync_new
        self._metrics = metrics
        self._all_sent = False
        self._opened = False
        self._unsettled: _Outcome | None = None
        self._failing: Literal["database", "inngest"] | None = None
        self._backoff = Backoff(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
        self._measure_at = 0.0
        self.depth: Depth | None = None
        self.last_sent_at: datetime | None = None
        self.last_error: str | None = None

    def stop(self) -> None:
        """Send what is pending, as far as it can be sent, and end."""
        self._backoff.retry_at = 0.0
        super().stop()

    def has_more(self) -> bool:
        """Whether there may be something that can be sent now."""
        return not self._all_sent

    async def turn(self) -> float:
        """Announce a batch, unless the last one failed a moment ago."""
        now, told_to_stop = monotonic(), self._stopping
        more = now >= self._backoff.retry_at and await self._announce()
        await self._measure()
        # A turn that began before `stop` may have missed what was recorded last.
        self._all_sent = told_to_stop and not more
        return 0.0 if more else max(0.0, self._backoff.retry_at - now) or BEAT_SECONDS

    async def _announce(self) -> bool:
        """One batch. True when there may be more that can be sent now."""
        try:
            await self._prepare()
            claimed = await self._outbox.claim(BATCH_SIZE, self._claim_seconds)
            if self._failing == "database":
                self._works()
            if claimed.changes:
                await self._settle(await self._send(claimed))
        except (TransientError, PermanentError) as error:
            self._failed(error, "database")
        return self._failing is None and len(claimed.changes) == BATCH_SIZE

    async def _prepare(self) -> None:
        if self._unsettled is not None:
            await self._settle(self._unsettled)
        if not self._opened:
            opening = await self._outbox.open()
            self._opened = True
            log.info("dispatching", from_now_on=opening.from_now_on, database_id=str(opening.database_id))

    async def _measure(self) -> None:
        # While Inngest is down as well: that is when somebody looks.
        if not self._opened or monotonic() < self._measure_at:
            return
        self._measure_at = monotonic() + DEPTH_SECONDS
        try:
            self.depth = await self._outbox.depth()
        except (TransientError, PermanentError) as error:
            log.warning("outbox_not_measured", error=str(error))
            return
        self._metrics.pending.set(self.depth.pending)
        self._metrics.oldest.set(self.depth.oldest_seconds)
        if self.depth.pending == 0:
            self._works()  # another daemon has sent what failed here

    async def _send(self, claimed: ClaimedChanges) -> _Outcome:
        waiting = _Batch(claimed, self._form, sync_new=self._sync_new)
        try:
            refused = await self._sender.send(waiting.events, lambda sent: self._sent(waiting, sent))
        except (TransientError, KeyRefusedError) as error:
            return self._not_for_now(waiting, error)
        except Exception as error:  # a fault of ours must not end the announcing of everything else
            log.exception("dispatch_failed_unexpectedly", changes=len(claimed.changes))
            return self._not_for_now(waiting, TransientError(type(error).__name__, reason="unknown"))
        except BaseException:
            await self._release(waiting)
            raise
        for item in refused:
            self._refused(waiting, item)
        self._works()
        return waiting.outcome(None, 0.0)

    def _sent(self, batch: _Batch, events: Sequence[OutgoingEvent]) -> None:
        self.beat()
        self.last_sent_at = utc_now()
        for event in events:
            batch.sent(event)
            self._metrics.dispatched.labels(event.name, "sent").inc()

    def _not_for_now(self, batch: _Batch, error: TransientError | KeyRefusedError) -> _Outcome:
        delay = self._failed(error, "inngest")
        for event in batch.unsent:
            self._metrics.dispatched.labels(event.name, "failed").inc()
        return batch.outcome(str(error), delay)

    def _refused(self, batch: _Batch, refused: Refused) -> None:
        change = batch.refused(refused)
        self._metrics.dispatched.labels(refused.event.name, "refused").inc()
        log.error(
            "change_abandoned",
            change_id=change.id,
            repository_id=str(change.repository_id) if change.repository_id else None,
            event_name=refused.event.name,
            error=refused.reason,
        )

    async def _settle(self, outcome: _Outcome) -> None:
        # Kept until all of it is written: each of these may be repeated.
        self._unsettled = outcome
        if outcome.dispatched:
            await self._outbox.mark_dispatched(outcome.dispatched)
        if outcome.abandoned:
            await self._outbox.abandon(outcome.abandoned)
        if outcome.put_back:
            await self._outbox.put_back(outcome.put_back, outcome.error, outcome.delay_seconds)
        self._unsettled = None
        if outcome.dispatched:
            log.info("changes_dispatched", changes=len(outcome.dispatched))

    async def _release(self, batch: _Batch) -> None:
        # Cancelled in the middle of a batch: others need not wait for the claim to run out.
        with anyio.move_on_after(_RELEASE_SECONDS, shield=True):
            try:
                await self._settle(batch.outcome(None, 0.0))
            except (TransientError, PermanentError) as error:
                log.warning("claims_not_returned", error=str(error))

    def _works(self) -> None:
        self._backoff.worked()
        self._failing, self.last_error = None, None

    def _failed(
        self, error: TransientError | PermanentError | KeyRefusedError, where: Literal["database", "inngest"]
    ) -> float:
        self._failing = where
        delay = self._backoff.failed(monotonic(), error)
        self.last_error = str(error)
        log.warning("dispatch_failed", error=str(error), retry_seconds=round(delay, 1))
        return delay


class _Batch:
    """Claimed changes and which of their events Inngest has dealt with."""

    def __init__(self, claimed: ClaimedChanges, form: PriorityForm, *, sync_new: bool) -> None:
        self._changes = {change.id: change for change in claimed.changes}
        self._unsent: dict[int, set[str]] = {}
        self._change_of: dict[str, int] = {}
        self._reasons: dict[int, str] = {}
        self.events: list[OutgoingEvent] = []
        for change in claimed.changes:
            self._add(change, events_of(change, claimed.database_id, form, sync_new=sync_new))

    def _add(self, change: RecordedChange, events: list[OutgoingEvent]) -> None:
        self.events += events
        self._unsent[change.id] = {event.id for event in events}
        self._change_of |= {event.id: change.id for event in events}

    @property
    def unsent(self) -> list[OutgoingEvent]:
        """The events that nothing is known of."""
        return [event for event in self.events if event.id in self._unsent[self._change_of[event.id]]]

    def sent(self, event: OutgoingEvent) -> None:
        """This event is accepted."""
        self._unsent[self._change_of[event.id]].discard(event.id)

    def refused(self, refused: Refused) -> RecordedChange:
        """This event never will be; its change, whose other events may be."""
        change_id = self._change_of[refused.event.id]
        self._unsent[change_id].discard(refused.event.id)
        self._reasons[change_id] = f"{refused.event.name}: {refused.reason}"
        return self._changes[change_id]

    def outcome(self, error: str | None, delay_seconds: float) -> _Outcome:
        """What became of each change; those with events that were neither are put back."""
        left = [change_id for change_id, unsent in self._unsent.items() if unsent]
        done = self._unsent.keys() - left - self._reasons.keys()
        given_up = {key: reason for key, reason in self._reasons.items() if key not in left}
        return _Outcome(sorted(done), given_up, left, error, delay_seconds)
