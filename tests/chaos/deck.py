"""Which faults come next: names in random order, reshuffled when all have been drawn."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Final

_TOGETHER: Final = (1, 1, 1, 2, 3)


class Deck:
    """Each name is drawn once before any is drawn again. Those in `alone` are never drawn with others."""

    def __init__(self, names: Collection[str], alone: Collection[str], chance: random.Random) -> None:
        self._names = sorted(names)
        self._alone = set(alone)
        self._chance = chance
        self._left: list[str] = []
        self._unseen = set(names)

    @property
    def all_seen(self) -> bool:
        """Whether each was drawn at least once."""
        return not self._unseen

    def draw(self) -> list[str]:
        """Draw one to three different names."""
        drawn: list[str] = []
        for _ in range(self._chance.choice(_TOGETHER)):
            name = self._next()
            if name in drawn or (drawn and name in self._alone):
                self._left.append(name)
                break
            drawn.append(name)
            if name in self._alone:
                break
        self._unseen.difference_update(drawn)
        return sorted(drawn)

    def _next(self) -> str:
        if not self._left:
            self._left = self._chance.sample(self._names, len(self._names))
        return self._left.pop()
