"""The clocks of this process, in one place: code that decides gets `now` as an argument."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

_SINCE_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux's CLOCK_MONOTONIC, which `time.monotonic` reads, stands still while the machine sleeps (time(7),
clock_gettime(2)); macOS's goes on."""


def monotonic() -> float:
    """Seconds that never jump; for waiting and measuring."""
    return time.monotonic()


def since_boot() -> float:
    """Seconds that never jump and pass while the machine sleeps, too; for what others count on meanwhile."""
    return time.clock_gettime(_SINCE_BOOT)


def utc_now() -> datetime:
    """The host's wall clock, for schedules and time stamps only."""
    return datetime.now(UTC)
