"""What benchmarks report: medians with their spread, percentiles, ratios, and whether a bar holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any

Json = dict[str, Any]


def spread(values: Sequence[float], digits: int = 3) -> Json:
    """The median of repeated measurements, the least and the greatest of them, and their number."""
    return {
        "median": round(median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
        "repeats": len(values),
    }


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile of the values."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def ratios(ours: Sequence[float], floors: Sequence[float]) -> list[float]:
    """Each of our measurements divided by the floor that was measured right before it."""
    return [own / floor for own, floor in zip(ours, floors, strict=True)]


def at_most(value: float, bar: float, digits: int = 3) -> Json:
    """A bar that the value must not exceed; judged before rounding."""
    return {"value": round(value, digits), "bar": bar, "holds": value <= bar}


def at_least(value: float, bar: float) -> Json:
    """A bar that the value must reach; judged before rounding."""
    return {"value": round(value, 3), "bar": bar, "holds": value >= bar}


def timed(work: Callable[[], object]) -> float:
    """The seconds that the work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
