"""When the database was silent or changes were not heard in the last hour, to explain gaps in charts.

A fault is noticed only after it has lasted a while, so an outage is dated back to the last sign of health.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias, get_args

from priorityd.core.history import MINUTES
from priorityd.core.status.facts import Facts
from priorityd.core.status.problems import Problem

OutageName: TypeAlias = Literal["database_silent", "sweeps_fail", "changes_not_heard"]
"""The problems that are outages, the worst first: several at the same time are one, named after the worst."""

_NAMES: Final[tuple[OutageName, ...]] = get_args(OutageName)
_KEPT: Final = 60


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch of time, in UTC; `ended_at` is None while it goes on."""

    name: OutageName
    began_at: datetime
    ended_at: datetime | None = None


class Outages:
    """The outages of the last `MINUTES` minutes, the oldest first. They do not overlap."""

    def __init__(self) -> None:
        self._known: deque[Outage] = deque(maxlen=_KEPT)

    def note(self, facts: Facts, problems: Iterable[Problem], now: datetime) -> None:
        """Record what is wrong now."""
        there = {problem.name for problem in problems}
        name = next((each for each in _NAMES if each in there), None)
        # The wall clock was set back: nothing has begun at a time that is yet to come.
        while self._known and self._known[-1].began_at > now:
            self._known.pop()
        last = self._known[-1] if self._known else None
        if last is not None and last.ended_at is None:
            if last.name == name:
                return
            self._known[-1] = last = replace(last, ended_at=max(last.began_at, now))
        if name is not None:
            began = now - timedelta(seconds=_lasts_seconds(name, facts))
            earliest = last.ended_at if last and last.ended_at else began
            self._known.append(Outage(name, min(max(began, earliest), now)))

    def recent(self, now: datetime) -> list[Outage]:
        """The outages that lasted into the last hour."""
        first = now - timedelta(minutes=MINUTES)
        return [each for each in self._known if each.ended_at is None or each.ended_at > first]


def _lasts_seconds(name: OutageName, facts: Facts) -> float:
    match name:
        case "database_silent":
            return facts.database.silent_seconds
        case "sweeps_fail":
            return facts.repair.overdue_seconds
        case "changes_not_heard":
            return facts.stream.unheard_seconds
