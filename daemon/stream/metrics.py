"""Metrics of the change stream."""

from __future__ import annotations

from priorityd.core.stream.hints import OPERATIONS, TABLES
from priorityd.core.stream.listener_state import RECONNECT_REASONS, STATES, State
from priorityd.daemon.metrics import MetricRegistry


class StreamMetrics:
    """The listener's metrics."""

    def __init__(self, made: MetricRegistry) -> None:
        self.events = made.counter(
            "events", "Changes received from the stream.", table=TABLES, operation=OPERATIONS
        )
        self.malformed_events = made.counter("malformed_events", "Changes that could not be read.")
        self._state = made.gauge("listener_state", "1 for the state the listener is in.", state=STATES)
        self.reconnects = made.counter(
            "reconnects", "Connections given up, by reason.", reason=RECONNECT_REASONS
        )
        self.lag = made.gauge(
            "stream_lag_seconds", "Age of the last heartbeat row when it came back through the stream."
        )
        self.last_seen = made.gauge(
            "stream_last_seen_timestamp_seconds", "When anything last came through the stream, 0 for never."
        )
        self.set_state("connecting")

    def set_state(self, current: State) -> None:
        """Show the listener in this state."""
        for state in STATES:
            self._state.labels(state).set(1 if state == current else 0)
