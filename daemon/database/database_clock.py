"""The database's clock, extrapolated from its last reading."""

from __future__ import annotations

from datetime import datetime, timedelta

from priorityd.daemon.clock import since_boot, utc_now


class DatabaseClock:
    """Set whenever an answer of the database carries the time, so it lags by the time the answer took."""

    def __init__(self) -> None:
        self._read: tuple[datetime, float] | None = None

    def read(self, at: datetime) -> None:
        """The database has just reported the time `at`."""
        self._read = at, since_boot()

    def now(self) -> datetime | None:
        """The time by the database's clock; None before the first reading."""
        if self._read is None:
            return None
        at, read_at = self._read
        return at + timedelta(seconds=since_boot() - read_at)

    def host_ahead_seconds(self) -> float | None:
        """By how much this host's clock is ahead of the database's (negative: behind), None if unknown."""
        now = self.now()
        return None if now is None else (utc_now() - now).total_seconds()
