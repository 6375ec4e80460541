"""Nonsense from a seed: random JSON, damaged values, and a counted mixture of kinds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

TEXTS: Final = ("", "ok", "error", "INSERT", "\u0000", "2026-11-24T01:57:44.083Z", "\ud7ff é 🦄", "null")
_NUMBERS: Final = (-1, 0, 2**70, 1.5e300, 1e-320, True, False)
_NAMES: Final = (
    "data",
    "ids",
    "record",
    "table",
    "type",
    "status",
    "response",
    "commit_timestamp",
    "message",
    "changes",
    "applied_at",
    "code",
)
DEEP: Final = 20_000
"""Nesting deeper than any parser follows."""

Chance = random.Random


def value(chance: Chance, depth: int = 0) -> Any:
    """Random JSON."""
    kind = chance.randrange(9 if depth < 3 else 7)
    if kind < 2:
        return chance.choice(TEXTS)
    if kind < 4:
        return chance.choice(_NUMBERS)
    if kind == 4:
        return str(new_id(chance))
    if kind == 5:
        return None
    if kind == 6:
        return "x" * chance.choice((10, 1000))
    if kind == 7:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(_NAMES): value(chance, depth + 1) for _ in range(chance.randrange(5))}


def damaged(chance: Chance, real: Any, times: int = 1) -> Any:
    """The same value with something replaced, removed or added."""
    copy = json.loads(json.dumps(real))
    for _ in range(times):
        place = copy
        while isinstance(place, dict) and place:
            name = chance.choice(list(place))
            if isinstance(place[name], dict) and place[name] and chance.random() < 0.7:
                place = place[name]
                continue
            match chance.randrange(3):
                case 0:
                    del place[name]
                case 1:
                    place[name] = value(chance)
                case _:
                    place[chance.choice(_NAMES)] = value(chance)
            break
    return copy


def new_id(chance: Chance) -> UUID:
    """An id from this seed."""
    return UUID(int=chance.getrandbits(128), version=4)


class Mixture:
    """Draws from a table of kinds, by weight, and counts the draws."""

    def __init__(self, table: dict[str, tuple[float, Callable[[Chance], Any]]], chance: Chance) -> None:
        self._table = table
        self._chance = chance
        self._names = list(table)
        self._weights = [weight for weight, _ in table.values()]
        # Each kind once before chance decides, so that even a short run has all of them.
        self._first = list(table)
        self.counts = dict.fromkeys(table, 0)

    def draw(self) -> tuple[str, Any]:
        """A kind and an example of it."""
        name = self._first.pop() if self._first else self._chance.choices(self._names, self._weights)[0]
        self.counts[name] += 1
        return name, self._table[name][1](self._chance)
