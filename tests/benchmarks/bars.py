"""What every measurement reports in the same way: the middle, the spread, and which bars hold."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """The middle of repeated measurements, and the least and the greatest of them."""
    return {
        "median": round(median(values), digits),
        "least": round(min(values), digits),
        "greatest": round(max(values), digits),
        "n": len(values),
    }


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of the values do not exceed."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def bar(value: float, at_most: float, digits: int = 3) -> dict[str, Any]:
    """A bar as it is reported; `holds` is judged before rounding."""
    return {"value": round(value, digits), "bar": at_most, "holds": value <= at_most}
