"""A connection to the HTTP endpoints that nobody can hold without using it.

Uvicorn waits for ever for a request to be complete, and answers 503 to everybody while there are too many
connections; so whoever opened enough of them and said nothing would make a healthy daemon look dead.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

ANSWER_SECONDS: Final = 20.0
"""The longest between a connection's answers, or before its first; above how long it may idle between two."""


class TimedConnection(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, dropped when no answer has been finished for `ANSWER_SECONDS`."""

    _deadline: asyncio.TimerHandle | None = None

    # uvicorn's own signature is narrower than asyncio's.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._restart()

    def on_response_complete(self) -> None:
        """Start it anew."""
        super().on_response_complete()
        self._restart()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        self._cancel()
        super().connection_lost(exc)

    def _restart(self) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
