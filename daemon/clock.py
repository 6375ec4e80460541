"""The clocks of this process, in one place: code that decides gets `now` as an argument."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def monotonic() -> float:
    """Seconds that never jump; for waiting and measuring."""
    return time.monotonic()


def utc_now() -> datetime:
    """The host's wall clock, for schedules and time stamps only."""
    return datetime.now(UTC)
