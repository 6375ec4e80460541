"""The geometry of the charts: pure functions from a report to numbers that the template draws.

All numbers are per cent of a plot's width and height, from its upper left corner. The scales are the same for
every priority and never change: a height means the same now and a minute later. So both are logarithmic: a
single change is visible next to an import of thousands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log10
from typing import Final, Literal, TypeAlias

from priorityd.core.history import MINUTES
from priorityd.core.priorities import PRIORITIES, Priority
from priorityd.daemon.status.page import words
from priorityd.daemon.status.report import HistoryReport, LatencyReport, Report

LEAST_SECONDS: Final = 0.01
MOST_SECONDS: Final = 100.0
MOST_CHANGES: Final = 10_000
_SLOT: Final = 100 / MINUTES
_GAP: Final = _SLOT / 4
_LABEL: Final = 56.0
"""The width of a label on a phone, in per cent of the plot's."""
LANES: Final = 3
"""Lines for labels."""

BandKind: TypeAlias = Literal["outage", "before"]


@dataclass(frozen=True, slots=True)
class Whisker:
    """A minute's latencies, from the median at `low` to the 95th percentile at `high`."""

    x: float
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A minute's changes."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The changes to one priority."""

    priority: Priority
    changes: int
    latency: LatencyReport
    whiskers: tuple[Whisker, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """A period that explains a gap.

    Its label begins or ends (`anchor`) at `label_x`, in a lane where it overlaps no label of a later band; if
    there is no such lane, it has no label.
    """

    kind: BandKind
    x: float
    width: float
    text: str
    label: str | None
    label_x: float
    anchor: Literal["start", "end"]
    lane: int


def charts(history: HistoryReport) -> tuple[Chart, ...]:
    """A chart for each priority with changes in the last hour."""
    totals = {
        priority: sum(minute.changes[priority] for minute in history.minutes) for priority in PRIORITIES
    }
    return tuple(
        Chart(
            priority, total, history.latency[priority], _whiskers(priority, history), _bars(priority, history)
        )
        for priority, total in totals.items()
        if total
    )


def bands(report: Report) -> tuple[Band, ...]:
    """The outages and the time before this daemon, newest first, so that the newest always has a label."""
    first = report.history.minutes[0].at
    found = []
    room = [100.0 + _LABEL] * LANES
    for outage in reversed(report.history.outages):
        end = 100.0 if outage.ended_at is None else _x(outage.ended_at, first)
        label, text = words.OUTAGES[outage.name], words.outage(outage, report.at)
        found.append(_band("outage", _x(outage.began_at, first), end, label, text, room))
    if report.started_at > first + timedelta(minutes=1):
        text = f"This daemon was started at {words.clock(report.started_at)} UTC."
        found.append(_band("before", 0.0, _x(report.started_at, first), "before this daemon", text, room))
    return tuple(found)


def latency_height(seconds: float) -> float:
    """The position of a latency, in per cent from the top."""
    within = min(max(seconds, LEAST_SECONDS), MOST_SECONDS)
    return round(100 * (1 - log10(within / LEAST_SECONDS) / log10(MOST_SECONDS / LEAST_SECONDS)), 2)


def changes_height(changes: int) -> float:
    """The height for a number of changes, in per cent: 0 only for none."""
    return round(100 * log10(1 + min(changes, MOST_CHANGES)) / log10(1 + MOST_CHANGES), 2)


LATENCY_SCALE: Final = tuple(
    (latency_height(seconds), label)
    for seconds, label in ((100, "100 s"), (10, "10 s"), (1, "1 s"), (0.1, "100 ms"), (0.01, "10 ms"))
)
"""The lines of the scale: their positions and labels."""
CHANGE_SCALE: Final = tuple(
    (round(100 - changes_height(changes), 2), words.number(changes) if changes else "")
    for changes in (MOST_CHANGES, 100, 0)
)


def _whiskers(priority: Priority, history: HistoryReport) -> tuple[Whisker, ...]:
    found = []
    for index, minute in enumerate(history.minutes):
        latency = minute.latency[priority]
        if latency.p50_seconds is None or latency.p95_seconds is None:
            continue
        text = (
            f"{minute.at:%H:%M} UTC: median {words.duration(latency.p50_seconds)}, "
            f"95th percentile {words.duration(latency.p95_seconds)}"
        )
        low, high = latency_height(latency.p50_seconds), latency_height(latency.p95_seconds)
        found.append(Whisker(round((index + 0.5) * _SLOT, 2), low, high, text))
    return tuple(found)


def _bars(priority: Priority, history: HistoryReport) -> tuple[Bar, ...]:
    found = []
    for index, minute in enumerate(history.minutes):
        count = minute.changes[priority]
        if count:
            height = changes_height(count)
            x, y, width = index * _SLOT + _GAP / 2, 100 - height, _SLOT - _GAP
            text = f"{minute.at:%H:%M} UTC: {words.number(count)} to {priority}"
            found.append(Bar(round(x, 2), round(y, 2), round(width, 2), height, text))
    return tuple(found)


def _band(kind: BandKind, left: float, right: float, label: str, text: str, room: list[float]) -> Band:
    """Make a band. `room` is how far labels may reach in each lane, and is updated."""
    at_start = left <= 100 - _LABEL
    anchor: Literal["start", "end"] = "start" if at_start else "end"
    label_x = left if at_start else right
    reach = label_x + _LABEL if at_start else right
    lane = next((lane for lane in range(LANES) if reach <= room[lane]), None)
    if lane is not None:
        room[lane] = reach - _LABEL
    shown = label if lane is not None else None
    return Band(kind, left, round(right - left, 2), text, shown, label_x, anchor, lane or 0)


def _x(at: datetime, first: datetime) -> float:
    return round(min(max((at - first).total_seconds() / 60 * _SLOT, 0.0), 100.0), 2)
