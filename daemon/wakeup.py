"""Waiting for something to happen or for time to pass, whichever comes first."""

from __future__ import annotations

import anyio


class Wakeup:
    """A flag that one task waits for and any code sets; setting it twice wakes once."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiter, now or when it next waits."""
        self._event.set()

    async def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until `set` is called. False when the time ran out first."""
        with anyio.move_on_after(timeout_seconds) as scope:
            await self._event.wait()
        if scope.cancelled_caught:
            return False
        self._event = anyio.Event()
        return True
