"""Sends events to Inngest in batches, with retries within a call.

Inngest ignores events with a known id for 24 hours, so every batch may be sent again: after a lost answer,
after it was accepted in part (a 400 can come after some of its events were accepted), and by the bisection
that finds refused events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
import structlog

from priorityd.core.errors import ConfigurationError, PermanentError, TransientError
from priorityd.core.inngest.outgoing_events import OutgoingEvent, Refused, batches, split_refused
from priorityd.daemon.backoff import MAX_ATTEMPTS, retrying
from priorityd.daemon.inngest.event_api import REQUEST_TIMEOUT_SECONDS, EventApi, open_event_api
from priorityd.daemon.settings import Settings
from priorityd.daemon.wakeup import Wakeup

log = structlog.stdlib.get_logger()

OnSent: TypeAlias = Callable[[Sequence[OutgoingEvent], Sequence[str]], None]
"""Called with accepted events and Inngest's own ids for them, some of which may be missing."""


class EventSender:
    """See the module's docstring. Make one with `open_event_sender`.

    `on_attempt` is called before each attempt, and `timeout_seconds` limits each. `written` is set whenever a
    request was sent.
    """

    def __init__(
        self,
        api: EventApi,
        written: Wakeup,
        *,
        max_attempts: int = MAX_ATTEMPTS,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        on_attempt: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self.written = written
        self._max_attempts = max_attempts
        self._timeout_seconds = timeout_seconds
        self._on_attempt = on_attempt

    async def send(
        self,
        events: Sequence[OutgoingEvent],
        on_sent: OnSent = lambda _events, _ids: None,
    ) -> list[Refused]:
        """Send the events in order, and return those refused permanently.

        `on_sent` is called with each batch as soon as it is accepted, and with Inngest's own ids for it.
        Raises `TransientError` if Inngest can't be reached, is slow, or asks to wait, and
        `InngestKeyRefusedError` if it refuses the key. Events that `on_sent` was not called for may or may
        not have been accepted then, and are to be sent again.
        """
        sendable, refused = split_refused(events)
        for batch in batches(sendable):
            refused.extend(await self._send_or_bisect(batch, on_sent))
        return refused

    async def _send_or_bisect(self, batch: Sequence[OutgoingEvent], on_sent: OnSent) -> list[Refused]:
        # Depth first, left half first, to keep the order.
        refused: list[Refused] = []
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            try:
                ids = await self._send_batch(part)
            except PermanentError as error:
                if len(part) == 1:
                    refused.append(Refused(part[0], str(error)))
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
            else:
                on_sent(part, ids)
        return refused

    async def _send_batch(self, batch: Sequence[OutgoingEvent]) -> list[str]:
        ids: list[str] = []
        async for attempt in retrying(self._max_attempts):
            with attempt:
                self._on_attempt()
                ids = await self._send_once(batch)
        return ids

    async def _send_once(self, batch: Sequence[OutgoingEvent]) -> list[str]:
        try:
            # The client's own time-out is for each read; this one is for the request as a whole.
            with anyio.fail_after(self._timeout_seconds):
                return await self._api.post(batch)
        except TimeoutError:
            raise TransientError("Inngest: no answer in time", reason="timeout") from None


@asynccontextmanager
async def open_event_sender(
    settings: Settings,
    *,
    max_attempts: int = MAX_ATTEMPTS,
    timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    on_attempt: Callable[[], None] = lambda: None,
) -> AsyncIterator[EventSender]:
    """A sender for the Inngest of the settings; nothing is sent until the first call.

    Raises `ConfigurationError`, naming the setting, if there is no event key.
    """
    if not settings.inngest_sends:
        raise ConfigurationError("INNGEST_EVENT_KEY is not set (nor INNGEST_DEV for a development server)")
    written = Wakeup()
    async with open_event_api(settings, written.set) as api:
        yield EventSender(
            api,
            written,
            max_attempts=max_attempts,
            timeout_seconds=timeout_seconds,
            on_attempt=on_attempt,
        )
