"""Metrics of sweeps and full resyncs."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from priorityd.daemon.apply.metrics import DAEMON_TRIGGERS
from priorityd.daemon.metrics import MetricRegistry

Kind: TypeAlias = Literal["full", "sweep"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Outcome: TypeAlias = Literal["done", "failed"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

_SECONDS_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300)


class RepairMetrics:
    """The sweeper's and the resyncer's."""

    def __init__(self, made: MetricRegistry) -> None:
        self.resyncs = made.counter(
            "resyncs",
            "Full resyncs and sweeps that ended.",
            kind=KINDS,
            trigger=DAEMON_TRIGGERS,
            outcome=OUTCOMES,
        )
        self.resync_seconds = made.histogram(
            "resync_seconds", "Time of one full resync or sweep.", _SECONDS_BUCKETS, kind=KINDS
        )
        self.last_resync = made.gauge(
            "last_resync_timestamp_seconds", "When the last one succeeded, 0 for never.", kind=KINDS
        )
        self.drift_repaired = made.counter(
            "drift_repaired",
            "Rows that periodic sweeps found wrong and whose change the stream delivered late or not at all.",
        )
