"""Figures as the measurements print them: a median with its spread, and whether a bar holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

Json = dict[str, Any]


def spread(values: Sequence[float], digits: int = 3) -> Json:
    """The median of the repeats, the least and the most of them."""
    return {
        "median": round(median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
        "repeats": len(values),
    }


def ratios(ours: Sequence[float], floors: Sequence[float]) -> list[float]:
    """Each of ours over the floor that was measured right before it."""
    return [own / floor for own, floor in zip(ours, floors, strict=True)]


def at_most(value: float, bar: float) -> Json:
    """A bar that the value must not be above."""
    return {"value": round(value, 3), "bar": bar, "holds": value <= bar}


def at_least(value: float, bar: float) -> Json:
    """A bar that the value must not be below."""
    return {"value": round(value, 3), "bar": bar, "holds": value >= bar}


def timed(work: Callable[[], object]) -> float:
    """The seconds that the work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
