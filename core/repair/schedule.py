"""When something is due by a cron expression, on a wall clock that may be wrong."""

from __future__ import annotations

from datetime import datetime

from cronsim import CronSim


class Schedule:
    """`next_at` is the next time that matches the expression, in UTC.

    A clock that was ahead at the start and is corrected later must not leave a time that is years away.
    """

    def __init__(self, expression: str, now: datetime) -> None:
        self._expression = expression
        self._looked_at = now
        self.next_at = self._after(now)

    def is_due(self, now: datetime) -> bool:
        """Whether it is due. To be called often: it also notices a clock that was set back."""
        if now < self._looked_at:
            self.next_at = self._after(now)
        self._looked_at = now
        return now >= self.next_at

    def go_on(self, now: datetime) -> None:
        """The run that was due is done."""
        self.next_at = self._after(now)

    def _after(self, now: datetime) -> datetime:
        return next(CronSim(self._expression, now))
