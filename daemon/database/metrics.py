"""Metrics of the calls to Supabase."""

from __future__ import annotations

from priorityd.core.failures import REASONS
from priorityd.daemon.metrics import MetricRegistry


class DatabaseMetrics:
    """The store's."""

    def __init__(self, made: MetricRegistry) -> None:
        self.call_errors = made.counter("call_errors", "Calls to Supabase that failed.", reason=REASONS)
