"""Numbers, times, causes and states, worded for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from priorityd.core.priorities import Trigger
from priorityd.core.status.outages import Outage, OutageName

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

STREAM: Final = {
    "connecting": "The change stream is connecting",
    "joining": "The change stream is connecting",
    "live": "The change stream is connected",
    "stale": "The change stream has gone silent and is reconnecting",
    "backing_off": "The change stream is not connected; the next attempt is due soon",
    "stopped": "The change stream is closed",
}
"""The states of the listener."""
RUN_CAUSES: Final[dict[Trigger, str]] = {
    "sweep": "timer",
    "resync": "schedule",
    "start": "start",
    "reconnect": "reconnect",
}
"""Shorter words for the causes of sweeps and resyncs, where there are any."""
OUTAGES: Final[dict[OutageName, str]] = {
    "database_silent": "database silent",
    "sweeps_fail": "sweeps fail",
    "changes_not_heard": "stream silent",
}


def cause(trigger: Trigger) -> str:
    """Why a priority was looked at."""
    return CAUSES[trigger]


def run_cause(trigger: Trigger) -> str:
    """Why a sweep or a full resync ran."""
    return RUN_CAUSES.get(trigger) or CAUSES[trigger]


def sentences(text: str) -> tuple[str, str]:
    """A statement and its cause, which follows a colon; the cause is empty if there is none."""
    what, _, why = text.partition(": ")
    if not why:
        return text, ""
    # An identifier from the metrics and the runbook, as in "connect_failed: …", is not capitalized.
    return f"{what}.", why if "_" in why.split()[0] else why[:1].upper() + why[1:]


def workspaces(old: int, new: int) -> str:
    """How many workspaces a repository is in now, and was in before if that differs."""
    if new == 0:
        return "in no workspace"
    if old not in (0, new):
        return f"{number(old)} → {number(new)} {'workspace' if new == 1 else 'workspaces'}"
    return "in 1 workspace" if new == 1 else f"in {number(new)} workspaces"


def outage(outage: Outage, now: datetime) -> str:
    """What was wrong, from when to when."""
    end = outage.ended_at or now
    until = "now" if outage.ended_at is None else f"{clock(end)} UTC"
    lasted = duration((end - outage.began_at).total_seconds())
    return f"{OUTAGES[outage.name]} from {clock(outage.began_at)} to {until} ({lasted})"


def number(value: float) -> str:
    """A number with thousands separators: 1,204."""
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A duration to about two figures: 142 ms, 1.4 s, 12 min, 3.5 h, 2 days."""
    if seconds is None:
        return "–"
    for limit, unit, size in ((1, "ms", 0.001), (60, "s", 1), (3600, "min", 60), (2 * 86_400, "h", 3600)):
        if seconds < limit:
            return f"{_two_figures(seconds / size)} {unit}"
    return f"{seconds / 86_400:.0f} days"


def ago(at: datetime | None, now: datetime) -> str:
    """How long before `now` this was; "never" for None."""
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
