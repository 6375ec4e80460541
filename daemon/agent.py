"""The skeleton of everything that works in turns: one class, a name, and one `turn`.

    start ─▶ turn ─▶ rest ─▶ turn ─▶ … told to stop ─▶ turns while something is left ─▶ at_end

A turn does what is due and returns the time until something will be. The rest is cut short by the agent's
wakeup, and never exceeds `TICK_SECONDS`: each turn shows that the agent is alive. So a turn may come before
anything is due, and then does nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from priorityd.daemon.liveness import TICK_SECONDS, Liveness
from priorityd.daemon.wakeup import Wakeup


class Agent(ABC):
    """See the module's docstring.

    `name` is the agent's in the liveness probe; `wakeup` is passed in where others set it too.
    """

    name: ClassVar[str]

    def __init__(self, liveness: Liveness, wakeup: Wakeup | None = None) -> None:
        self._liveness = liveness
        self._wakeup = wakeup or Wakeup()
        self._stopping = False

    @abstractmethod
    async def turn(self) -> float:
        """Do what is due; return the seconds until the next turn, 0 for at once."""

    async def run(self) -> None:
        """Take turns until stopped and nothing is left."""
        while not self._stopping or self.has_more():
            self.tick()
            rest = await self.turn()
            await self._wakeup.wait(max(0.0, min(TICK_SECONDS, rest)))
        await self.at_end()
        self._liveness.ended(self.name)

    def wake(self) -> None:
        """There may be something to do: take a turn now, or right after the current one."""
        self._wakeup.set()

    def stop(self) -> None:
        """Finish what must be finished, and end."""
        self._stopping = True
        self.wake()

    def tick(self) -> None:
        """Report being alive; for long turns."""
        self._liveness.tick(self.name)

    def has_more(self) -> bool:
        """Whether something must still be done before the end."""
        return False

    async def at_end(self) -> None:  # noqa: B027 - most agents have nothing to do there
        """What is done last."""
