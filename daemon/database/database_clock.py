"""The database's clock as this host can tell it, without asking: it was read once, and time has passed
since."""

from __future__ import annotations

from datetime import datetime, timedelta

from priorityd.daemon.clock import monotonic, utc_now


class DatabaseClock:
    """Told of the time whenever an answer of the database carries it, so it lags by what the answer took."""

    def __init__(self) -> None:
        self._read: tuple[datetime, float] | None = None

    def read(self, at: datetime) -> None:
        """The database has just said that it is `at`."""
        self._read = at, monotonic()

    def now(self) -> datetime | None:
        """The time by the database's clock; None before it has told."""
        if self._read is None:
            return None
        at, read_at = self._read
        return at + timedelta(seconds=monotonic() - read_at)

    def host_ahead_seconds(self) -> float | None:
        """By how much this host's clock is ahead of it; negative: behind."""
        now = self.now()
        return None if now is None else (utc_now() - now).total_seconds()
