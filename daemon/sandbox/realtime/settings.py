"""Settings and constants of a Realtime server; the defaults are those of v2.129.8."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RealtimeSettings:
    """`events_per_second` is the quota of changes for all subscriptions together; it depends on the plan.

    A refused handshake or join is answered after its `…_refusal_seconds`. The publication is checked every
    `publication_seconds`.
    """

    events_per_second: float = 100.0
    handshake_refusal_seconds: float = 2.0
    join_refusal_seconds: float = 5.0
    publication_seconds: float = 60.0
