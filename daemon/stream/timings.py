"""How patient the listener and its canary are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from priorityd.core.stream.listener_state import BACKOFF_MAX_SECONDS, RENEW_AFTER_SECONDS

BEAT_INTERVAL_SECONDS: Final = 15.0
"""With the grace, the longest that nothing comes back while all is well: what is older is a stream that is
deaf."""
BEAT_GRACE_SECONDS: Final = 10.0
"""How long a heartbeat row may take to come back; the stream's own delay is below a second."""
LINGER_SECONDS: Final = 30.0
"""How long a renewed connection is still heard; 10,000 rows of one transaction were seen to take 5.5 s."""


@dataclass(frozen=True, slots=True)
class Timings:
    """See the module's text.

    A heartbeat row is written every `beat_interval_seconds` and may take `beat_grace_seconds` to come back. A
    connection is renewed at the age of `renew_after_seconds` and then heard for `linger_seconds` more. After
    failures the listener waits for `backoff_max_seconds` at most.
    """

    beat_interval_seconds: float = BEAT_INTERVAL_SECONDS
    beat_grace_seconds: float = BEAT_GRACE_SECONDS
    renew_after_seconds: float = RENEW_AFTER_SECONDS
    linger_seconds: float = LINGER_SECONDS
    backoff_max_seconds: float = BACKOFF_MAX_SECONDS


USUAL: Final = Timings()
