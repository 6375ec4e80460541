"""Metrics of announced changes."""

from __future__ import annotations

from priorityd.core.outbox.announcements import ANNOUNCED_EVENTS
from priorityd.daemon.metrics import MetricRegistry


class OutboxMetrics:
    """The dispatcher's."""

    def __init__(self, made: MetricRegistry) -> None:
        self.pending = made.gauge("outbox_pending", "Changes that wait to be announced to Inngest.")
        self.oldest = made.gauge("outbox_oldest_seconds", "How long the oldest of them has waited.")
        self.dispatched = made.counter(
            "dispatched",
            "Events that Inngest accepted, refused permanently, or did not accept for now.",
            event=ANNOUNCED_EVENTS,
            outcome=("sent", "refused", "failed"),
        )
