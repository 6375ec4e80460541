"""The listener's time-outs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from priorityd.core.stream.listener_state import BACKOFF_MAX_SECONDS, RENEW_AFTER_SECONDS

LINGER_SECONDS: Final = 30.0
"""How long a replaced connection is kept open; 10,000 rows of one transaction took 5.5 s to arrive."""


@dataclass(frozen=True, slots=True)
class Timings:
    """See the module's docstring.

    A connection is replaced after `renew_after_seconds`, and the old one is kept open for `linger_seconds`
    more. After failures the listener waits at most `backoff_max_seconds`.
    """

    renew_after_seconds: float = RENEW_AFTER_SECONDS
    linger_seconds: float = LINGER_SECONDS
    backoff_max_seconds: float = BACKOFF_MAX_SECONDS


USUAL: Final = Timings()
