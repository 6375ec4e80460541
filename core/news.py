"""A signal that something has happened: its source does not know its listeners."""

from __future__ import annotations

from collections.abc import Callable


class News:
    """Says only that there is something new; what it is, a listener reads where it is kept."""

    def __init__(self) -> None:
        self._hearers: list[Callable[[], None]] = []

    def subscribe(self, call: Callable[[], None]) -> None:
        """Call this back whenever there is something new; it must be quick and never raise."""
        self._hearers.append(call)

    def tell(self) -> None:
        """There is something new."""
        for call in self._hearers:
            call()
