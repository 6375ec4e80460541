"""The geometry of the charts: pure functions from a history to numbers that the template draws.

A chart is `WIDTH` by `HEIGHT` in its own units and stretched to the room it gets, so no text is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10
from typing import Final

from priorityd.core.priorities import PRIORITIES, Priority
from priorityd.daemon.status.report import HistoryReport, MinuteReport

WIDTH: Final = 600.0
HEIGHT: Final = 120.0
_GAP: Final = 2.0
_STEPS: Final = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; `text` says what it stands for."""

    x: float
    y: float
    width: float
    height: float
    priority: Priority
    text: str


@dataclass(frozen=True, slots=True)
class ChangeChart:
    """Changes by minute, stacked by the priority that they led to; `top` is the number at the upper edge."""

    top: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class LatencyLine:
    """The latency of one priority: `dots` are medians, `bars` reach up to the 95th percentile."""

    priority: Priority
    dots: tuple[tuple[float, float], ...]
    bars: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class LatencyChart:
    """Latencies by minute; `top` is the seconds at the upper edge, the same for every priority."""

    top: float
    lines: tuple[LatencyLine, ...]


def change_chart(history: HistoryReport) -> ChangeChart:
    """The chart of changes."""
    most = max((sum(minute.changes.values()) for minute in history.minutes), default=0)
    top = nice_ceiling(most)
    bars = [
        bar for index, minute in enumerate(history.minutes) for bar in _stack(index, minute, history, top)
    ]
    return ChangeChart(top, tuple(bars))


def latency_chart(history: HistoryReport) -> LatencyChart:
    """The chart of latencies, with one scale for all priorities so that they can be compared."""
    seen = (latency.p95_seconds or 0.0 for minute in history.minutes for latency in minute.latency.values())
    top = nice_ceiling(max(seen, default=0.0))
    return LatencyChart(top, tuple(_line(priority, history, top) for priority in PRIORITIES))


def nice_ceiling(value: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below `value`; 1 for 0."""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** floor(log10(value))
    return next(step * power for step in _STEPS if value <= step * power * (1 + 1e-9))


def _slot(history: HistoryReport) -> float:
    return WIDTH / max(1, len(history.minutes))


def _stack(index: int, minute: MinuteReport, history: HistoryReport, top: float) -> list[Bar]:
    slot, below, bars = _slot(history), HEIGHT, []
    for priority in PRIORITIES:
        count = minute.changes[priority]
        if count:
            height = round(count / top * HEIGHT, 2)
            below = round(below - height, 2)
            text = f"{minute.at:%H:%M} UTC: {count} to {priority}"
            bars.append(Bar(round(index * slot + _GAP / 2, 2), below, slot - _GAP, height, priority, text))
    return bars


def _line(priority: Priority, history: HistoryReport, top: float) -> LatencyLine:
    slot = _slot(history)
    dots, bars = [], []
    for index, minute in enumerate(history.minutes):
        latency = minute.latency[priority]
        if latency.p50_seconds is None or latency.p95_seconds is None:
            continue
        x = round((index + 0.5) * slot, 2)
        low, high = _height(latency.p50_seconds, top), _height(latency.p95_seconds, top)
        dots.append((x, low))
        bars.append((x, low, high))
    return LatencyLine(priority, tuple(dots), tuple(bars))


def _height(seconds: float, top: float) -> float:
    return round(HEIGHT - min(seconds / top, 1.0) * HEIGHT, 2)
