"""Events on their way to Inngest, and how many of them fit into one request.

Limits of the event API, from Inngest's page "Usage Limits" and its open-source server
(`pkg/consts/consts.go`, `pkg/eventstream`):

- 5,000 events in a request; one more and the server answers 400, having taken the first 5,000.
- 256 characters in a name.
- 256 KiB for an event on the smallest plan, 3 MiB on the others, and never more. The page lists this under
  "Request Body Size", so a whole request is kept below the smallest plan's figure: what fits is accepted on
  any plan. An event that alone is larger is sent alone, and the plan decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MAX_EVENTS_PER_REQUEST: Final = 5000
MAX_REQUEST_BYTES: Final = 256 * 1024
MAX_EVENT_BYTES: Final = 3 * 1024 * 1024
MAX_NAME_LENGTH: Final = 256
_RESERVED_PREFIX: Final = "inngest/"
_COMMA_BYTES: Final = 1
"""Between two events."""


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """An event as Inngest takes it. `data` is JSON; `id` is the same whenever the same event is sent.

    Inngest starts no second run for an id seen in the last 24 hours, so sending again is harmless.
    """

    name: str
    data: Mapping[str, object]
    id: str
    _size_bytes: int | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def body(self) -> dict[str, object]:
        """As the event API takes it; the API adds the time."""
        return {"name": self.name, "data": self.data, "id": self.id}

    @property
    def size_bytes(self) -> int:
        """See the function `size_bytes`. Cached: ordering, refusing and splitting each ask for it."""
        size = self._size_bytes
        if size is None:
            text = json.dumps(self.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            size = len(text.encode()) + _COMMA_BYTES
            object.__setattr__(self, "_size_bytes", size)
        return size


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that will never be accepted, and why."""

    event: OutgoingEvent
    reason: str


def size_bytes(event: OutgoingEvent) -> int:
    """The event's size in a request body. Raises `TypeError` or `ValueError` when `data` is not JSON."""
    return event.size_bytes


def why_refused(event: OutgoingEvent) -> str | None:
    """Why Inngest will not accept the event on any plan, or None if it may."""
    if not event.name:
        return "its name is empty"
    if len(event.name) > MAX_NAME_LENGTH:
        return f"its name has {len(event.name)} characters, more than {MAX_NAME_LENGTH}"
    if event.name.lower().startswith(_RESERVED_PREFIX):
        return f"names that begin with {_RESERVED_PREFIX} are reserved for Inngest"
    try:
        size = size_bytes(event)
    except (TypeError, ValueError) as error:
        return f"its data is not JSON: {error}"
    if size > MAX_EVENT_BYTES:
        return f"it has {size} bytes, more than {MAX_EVENT_BYTES}"
    return None


def split_refused(events: Iterable[OutgoingEvent]) -> tuple[list[OutgoingEvent], list[Refused]]:
    """The events that may be sent, in order, and those that no plan accepts."""
    sendable: list[OutgoingEvent] = []
    refused: list[Refused] = []
    for event in events:
        reason = why_refused(event)
        if reason is None:
            sendable.append(event)
        else:
            refused.append(Refused(event, reason))
    return sendable, refused


def batches(events: Iterable[OutgoingEvent]) -> Iterator[Sequence[OutgoingEvent]]:
    """The events in order, in as few requests as the limits allow."""
    batch: list[OutgoingEvent] = []
    size = 0
    for event in events:
        event_size = size_bytes(event)
        if batch and (len(batch) == MAX_EVENTS_PER_REQUEST or size + event_size > MAX_REQUEST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += event_size
    if batch:
        yield batch
