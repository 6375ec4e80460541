"""What a server of Realtime is set to, or has fixed in its source; the defaults are those of v2.129.8."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RealtimeSettings:
    """`events_per_second` is the quota of changes, of all subscriptions together; Supabase's plans differ.

    A refused handshake and a refused join are answered after their `…_refusal_seconds`. The publication is
    looked at every `publication_seconds`.
    """

    events_per_second: float = 100.0
    handshake_refusal_seconds: float = 2.0
    join_refusal_seconds: float = 5.0
    publication_seconds: float = 60.0
