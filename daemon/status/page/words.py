"""Numbers, times and causes as people say them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from priorityd.core.priorities import Trigger

CAUSES: Final[dict[Trigger, str]] = {
    "event": "workspace change",
    "sweep": "found by a sweep",
    "resync": "scheduled resync",
    "start": "resync at start",
    "reconnect": "sweep after reconnect",
    "signal": "operator (SIGHUP)",
    "overflow": "too many changes at once",
    "manual": "operator",
    "pin": "manual priority set",
    "migration": "migration",
    "rollback": "rollback",
}


def cause(trigger: Trigger) -> str:
    """Why a priority was looked at."""
    return CAUSES[trigger]


def number(value: float) -> str:
    """A number with its thousands set apart: 1,204."""
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A length of time to two figures or so: 142 ms, 1.4 s, 12 min, 3.5 h, 2 days."""
    if seconds is None:
        return "–"
    for limit, unit, size in ((1, "ms", 0.001), (60, "s", 1), (3600, "min", 60), (2 * 86_400, "h", 3600)):
        if seconds < limit:
            return f"{_two_figures(seconds / size)} {unit}"
    return f"{seconds / 86_400:.0f} days"


def ago(at: datetime | None, now: datetime) -> str:
    """How long before `now` that was."""
    if at is None:
        return "never"
    seconds = (now - at).total_seconds()
    return "just now" if seconds < 1 else f"{_whole(seconds)} ago"


def clock(at: datetime) -> str:
    """A time of day, in UTC, with seconds."""
    return f"{at.astimezone(UTC):%H:%M:%S}"


def _two_figures(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 9.95 and round(value, 1) != round(value) else f"{value:.0f}"


def _whole(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.0f} days"
