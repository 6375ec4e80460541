"""Claim, send, settle: how items that wait in the database are sent to Inngest.

    claimed ──all its events accepted──▶ sent
       ├───an event refused permanently─▶ refused, with the reason
       └──────not for now───────────────▶ unsent: put back

Nothing is lost: an item is marked only after Inngest has accepted its events. The outcome of a batch is kept
until all of it is written, since each of these calls may be repeated. What was sent but not marked (the
process died, the answer or the database was lost) is sent again under the same ids, so Inngest ignores the
repeat for 24 hours. There is one batch at a time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import ClassVar, Final, Generic, TypeAlias, TypeVar

import anyio
import structlog

from priorityd.core.backoff import Backoff
from priorityd.core.errors import InngestKeyRefusedError, PermanentError, TransientError
from priorityd.core.inngest.outgoing_events import OutgoingEvent, Refused
from priorityd.daemon.agent import Agent
from priorityd.daemon.clock import utc_now
from priorityd.daemon.inngest.sender import EventSender
from priorityd.daemon.liveness import Liveness

log = structlog.stdlib.get_logger()

_FIRST_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 20.0
"""After an outage of Inngest of any length, sending goes on within this time, or when it asks for."""
_LONGEST_DATABASE_RETRY_SECONDS: Final = 10.0
"""The same for what waits in the database, after an outage of that."""
_GIVE_BACK_SECONDS: Final = 3.0
"""For settling what is left of a batch when the process is stopped."""

Item = TypeVar("Item")
NotForNow: TypeAlias = TransientError | InngestKeyRefusedError
"""Why Inngest does not accept events that it may accept later."""


@dataclass(slots=True)
class _Claimed(Generic[Item]):
    """An item, its events with an unknown outcome, and why one of its events was refused."""

    item: Item
    unsent: set[str]
    refused_because: str | None = None


class Batch(Generic[Item]):
    """Claimed items in order, their events, and their outcome.

    `error` is why not everything was sent, `delay_seconds` the wait before the next attempt. `inngest_ids`
    maps our ids of the accepted events to Inngest's own.
    """

    def __init__(self) -> None:
        self.events: list[OutgoingEvent] = []
        self.error: str | None = None
        self.delay_seconds = 0.0
        self.inngest_ids: dict[str, str] = {}
        self._claimed: list[_Claimed[Item]] = []
        self._by_event: dict[str, _Claimed[Item]] = {}

    def add(self, item: Item, events: Sequence[OutgoingEvent]) -> None:
        """Add an item with the events to send for it."""
        claimed = _Claimed(item, {event.id for event in events})
        self._claimed.append(claimed)
        self._by_event |= {event.id: claimed for event in events}
        self.events += events

    def add_refused(self, item: Item, reason: str) -> None:
        """Add an item for which nothing can be sent."""
        self._claimed.append(_Claimed(item, set(), reason))

    def item_of(self, event: OutgoingEvent) -> Item:
        """The item for which the event is sent."""
        return self._by_event[event.id].item

    def accepted(self, event: OutgoingEvent, inngest_id: str | None = None) -> None:
        """Inngest has accepted this event, under this id of its own."""
        self._by_event[event.id].unsent.discard(event.id)
        if inngest_id:
            self.inngest_ids[event.id] = inngest_id

    def refused_for_good(self, event: OutgoingEvent, reason: str) -> None:
        """Inngest will never accept this event; it may accept others of its item."""
        self._by_event[event.id].refused_because = reason
        self.accepted(event)

    @property
    def unsent_events(self) -> list[OutgoingEvent]:
        """The events with an unknown outcome."""
        return [event for event in self.events if event.id in self._by_event[event.id].unsent]

    @property
    def sent(self) -> list[Item]:
        """The items whose events were all accepted."""
        return [each.item for each in self._claimed if not each.unsent and each.refused_because is None]

    @property
    def refused(self) -> list[tuple[Item, str]]:
        """The items refused permanently, and why."""
        known = [each for each in self._claimed if not each.unsent]
        return [(each.item, each.refused_because) for each in known if each.refused_because is not None]

    @property
    def unsent(self) -> list[Item]:
        """The items with events that were neither accepted nor refused; to be put back."""
        return [each.item for each in self._claimed if each.unsent]


class Delivery(Agent, Generic[Item]):
    """See the module's docstring. A subclass claims what waits in its turn, and calls `deliver`.

    `defect` is the log event for a bug of our own, which must not stop the delivery of everything else.
    `last_sent_at` is when Inngest last accepted an event (UTC), None if it has not yet.
    """

    defect: ClassVar[str]

    def __init__(self, sender: EventSender, liveness: Liveness) -> None:
        super().__init__(liveness)
        self._sender = sender
        self._backoff = Backoff(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
        self._database_backoff = Backoff(_FIRST_RETRY_SECONDS, _LONGEST_DATABASE_RETRY_SECONDS)
        self._unsettled: Batch[Item] | None = None
        self.last_sent_at: datetime | None = None

    @abstractmethod
    async def settle(self, batch: Batch[Item]) -> None:
        """Write the outcome of the batch; may be repeated."""

    @abstractmethod
    def on_sent(self, item: Item, event: OutgoingEvent) -> None:
        """Inngest has accepted this event."""

    @abstractmethod
    def on_refused(self, item: Item, refused: Refused) -> str:
        """Inngest will never accept this event; returns the reason to write."""

    @abstractmethod
    def on_tried(self, batch: Batch[Item], error: NotForNow | None) -> None:
        """The batch was sent or refused; with an error, only in part. It is settled next."""

    async def deliver(self, batch: Batch[Item]) -> NotForNow | None:
        """Send the batch and settle it; returns why not everything could be sent, or None."""
        self._unsettled = batch
        error = await self._send(batch)
        batch.error = None if error is None else str(error)
        self.on_tried(batch, error)
        await self.settle_rest()
        return error

    async def settle_rest(self) -> None:
        """Settle the last batch, if that has not succeeded yet."""
        if self._unsettled is not None:
            await self.settle(self._unsettled)
            self._unsettled = None

    async def at_end(self) -> None:
        """Settle the last batch, if the database failed before and works again."""
        await self.give_back()

    async def _send(self, batch: Batch[Item]) -> NotForNow | None:
        try:
            refused = await self._sender.send(
                batch.events, lambda events, ids: self._accept(batch, events, ids)
            )
        except (TransientError, InngestKeyRefusedError) as error:
            return error
        except Exception as error:
            log.exception(self.defect, events=len(batch.events))
            return TransientError(type(error).__name__, reason="unknown")
        except BaseException:
            await self.give_back()
            raise
        for each in refused:
            batch.refused_for_good(each.event, self.on_refused(batch.item_of(each.event), each))
        return None

    def _accept(self, batch: Batch[Item], events: Sequence[OutgoingEvent], ids: Sequence[str]) -> None:
        self.tick()
        self.last_sent_at = utc_now()
        for event, inngest_id in zip_longest(events, ids[: len(events)]):
            batch.accepted(event, inngest_id)
            self.on_sent(batch.item_of(event), event)

    async def give_back(self) -> None:
        """Settle what is left, if that is quick; else others wait for the claims to expire."""
        with anyio.move_on_after(_GIVE_BACK_SECONDS, shield=True):
            try:
                await self.settle_rest()
            except (TransientError, PermanentError) as error:
                log.warning("claim_return_failed", error=str(error))
