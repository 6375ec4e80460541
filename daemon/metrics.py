"""How the metrics of each room are made; its `metrics` module lists them.

Every label value that can occur is known, so every series starts at zero. Ids are never labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# A `_created` series beside every series would double them, and nothing reads it.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package has no annotation there

PREFIX: Final = "workspace_priority_"
NO_PRIORITY: Final = "none"
"""Label of a row that had no priority before it was corrected."""

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class MetricRegistry:
    """Makes metrics in its own registry; each label is given with all its values."""

    def __init__(self) -> None:
        self.collected = CollectorRegistry()
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []

    def counter(self, name: str, text: str, **labels: Iterable[str]) -> Counter:
        """Exposed with `_total` after its name."""
        return _at_zero(Counter(PREFIX + name, text, labels, registry=self.collected), labels)

    def gauge(self, name: str, text: str, **labels: Iterable[str]) -> Gauge:
        """A value that goes up and down."""
        return _at_zero(Gauge(PREFIX + name, text, labels, registry=self.collected), labels)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], **labels: Iterable[str]
    ) -> Histogram:
        """A distribution of durations or sizes."""
        made = Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.collected)
        return _at_zero(made, labels)

    def watch(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Read the gauge's value at each `refresh`."""
        self._watched.append((gauge, read))

    def refresh(self) -> None:
        """Bring the watched gauges up to date; to be called in the daemon's event loop."""
        for gauge, read in self._watched:
            gauge.set(read())


def _at_zero(metric: _Metric, labels: dict[str, Iterable[str]]) -> _Metric:
    if labels:
        for values in product(*labels.values()):
            metric.labels(*values)
    return metric
