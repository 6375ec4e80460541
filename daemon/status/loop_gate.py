"""Asks the daemon's event loop from another thread.

The daemon's state belongs to its event loop: another thread that read it could find it half-changed. So a
question is handed to the loop, which answers between two of its steps. A blocked loop does not answer; that
it has stopped turning can be seen here without asking it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

import anyio

from priorityd.daemon.clock import monotonic

Answer = TypeVar("Answer")

TURN_SECONDS: Final = 0.5
STALLED_AFTER_SECONDS: Final = 3.0
"""Far longer than any single step of the daemon; a loop that has not turned for longer is blocked."""


class LoopBusyError(Exception):
    """The event loop has not answered in time."""


class LoopGate:
    """See the module's docstring. To be created in the event loop that is asked."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._turned_at = monotonic()

    async def run(self) -> None:
        """Note every `TURN_SECONDS` that the loop turns, until cancelled."""
        while True:
            self._turned_at = monotonic()
            await anyio.sleep(TURN_SECONDS)

    def stalled_seconds(self) -> float:
        """How long the loop has not turned; 0 while it is not blocked. For any thread."""
        seconds = monotonic() - self._turned_at
        return seconds if seconds > STALLED_AFTER_SECONDS else 0.0

    async def ask(
        self, question: Callable[[], Answer], timeout_seconds: float = STALLED_AFTER_SECONDS
    ) -> Answer:
        """The answer to `question`, which is called in the loop. For another thread's event loop.

        Raises `LoopBusyError` if it does not come in time.
        """
        # Give a blocked loop nothing more to do: its backlog must not grow.
        if self.stalled_seconds():
            raise LoopBusyError
        future: Future[Answer] = Future()
        try:
            self._loop.call_soon_threadsafe(_answer, future, question)
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.wrap_future(future)
        except (TimeoutError, RuntimeError) as error:
            # RuntimeError: the loop is closed already.
            if isinstance(error, RuntimeError) and not self._loop.is_closed():
                raise
            raise LoopBusyError from None


def _answer(future: Future[Answer], question: Callable[[], Answer]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(question())
    except Exception as error:  # noqa: BLE001 - handed to the caller
        future.set_exception(error)
