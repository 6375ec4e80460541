"""Something has happened, and whoever cares hears of it: who tells does not know who hears."""

from __future__ import annotations

from collections.abc import Callable


class News:
    """Says only that there is something new; what it is, each hearer finds where it is kept."""

    def __init__(self) -> None:
        self._hearers: list[Callable[[], None]] = []

    def subscribe(self, call: Callable[[], None]) -> None:
        """Call this whenever there is something new; it must be quick and raise nothing."""
        self._hearers.append(call)

    def tell(self) -> None:
        """There is something new."""
        for call in self._hearers:
            call()
