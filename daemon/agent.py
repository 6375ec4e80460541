"""The skeleton of all that works by turns: one class, a name, and one `turn`.

    start ─▶ turn ─▶ rest ─▶ turn ─▶ … told to stop ─▶ turns while something is left ─▶ at_end

A turn does what is due and says how long it is until something will be. The rest is cut short by the agent's
wakeup, and never lasts longer than `TICK_SECONDS`: each turn is the sign that the agent still goes round. So
a turn may come before anything is due, and does nothing then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from priorityd.daemon.liveness import TICK_SECONDS, Liveness
from priorityd.daemon.wakeup import Wakeup


class Agent(ABC):
    """See the module's text.

    `name` is the agent's in the liveness probe; `wakeup` is given where others set it too.
    """

    name: ClassVar[str]

    def __init__(self, liveness: Liveness, wakeup: Wakeup | None = None) -> None:
        self._liveness = liveness
        self._wakeup = wakeup or Wakeup()
        self._stopping = False

    @abstractmethod
    async def turn(self) -> float:
        """Do what is due; the seconds until the next turn is worth it, 0 for at once."""

    async def run(self) -> None:
        """Take turns until told to stop and nothing is left."""
        while not self._stopping or self.has_more():
            self.tick()
            rest = await self.turn()
            await self._wakeup.wait(max(0.0, min(TICK_SECONDS, rest)))
        await self.at_end()
        self._liveness.ended(self.name)

    def wake(self) -> None:
        """There may be something to do: take a turn now, or right after the one that is under way."""
        self._wakeup.set()

    def stop(self) -> None:
        """Finish what has to be finished, and end."""
        self._stopping = True
        self.wake()

    def tick(self) -> None:
        """The agent goes round; for turns that may take long."""
        self._liveness.tick(self.name)

    def has_more(self) -> bool:
        """Whether something is left that has to be done before the end."""
        return False

    async def at_end(self) -> None:  # noqa: B027 - most agents have nothing to do there
        """What is done last of all."""
