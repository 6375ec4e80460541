"""The order in which the events of many jobs are sent, while their priorities are still being looked up.

Everything urgent is sent before everything else, each in the order given. So the rest waits until every
look-up is over, and urgent events are sent as soon as they fill a request: look-ups and sending overlap, and
no more requests are needed than if everything had been known from the start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from priorityd.core.inngest.outgoing_events import (
    MAX_EVENTS_PER_REQUEST,
    MAX_REQUEST_BYTES,
    OutgoingEvent,
    size_bytes,
)


class SendOrder:
    """Events to send, a request's worth at a time."""

    def __init__(self) -> None:
        self._urgent: deque[tuple[OutgoingEvent, int]] = deque()
        self._others: deque[tuple[OutgoingEvent, int]] = deque()
        self._urgent_bytes = 0
        self._complete = False

    def add(self, event: OutgoingEvent, *, urgent: bool) -> None:
        """Add an event. One whose data is not JSON is passed on, for the sender to refuse."""
        try:
            size = size_bytes(event)
        except (TypeError, ValueError):
            size = 0
        if urgent:
            self._urgent.append((event, size))
            self._urgent_bytes += size
        else:
            self._others.append((event, size))

    def complete(self) -> None:
        """No more events will be added."""
        self._complete = True

    @property
    def is_over(self) -> bool:
        """Whether nothing is left and nothing more will be added."""
        return self._complete and not self._urgent and not self._others

    def take(self) -> Sequence[OutgoingEvent]:
        """The events of the next request; none if they are not known yet, or none are left."""
        full = self._urgent_bytes > MAX_REQUEST_BYTES or len(self._urgent) > MAX_EVENTS_PER_REQUEST
        if not full and not self._complete:
            return ()
        batch: list[OutgoingEvent] = []
        size = 0
        while (following := self._following()) and self._fits(batch, size, following[0][1]):
            event, event_size = following.popleft()
            if following is self._urgent:
                self._urgent_bytes -= event_size
            batch.append(event)
            size += event_size
        return batch

    def _following(self) -> deque[tuple[OutgoingEvent, int]] | None:
        if self._urgent:
            return self._urgent
        return self._others if self._others and self._complete else None

    def _fits(self, batch: Sequence[OutgoingEvent], size: int, more: int) -> bool:
        return not batch or (len(batch) < MAX_EVENTS_PER_REQUEST and size + more <= MAX_REQUEST_BYTES)
