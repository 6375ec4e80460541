"""How many rows a full resync asks for at a time."""

from __future__ import annotations

from typing import Final

RESYNC_PAGE_SIZE: Final = 25_000
"""Tracked rows in the first call of a full resync: well below the API's time limit on small databases."""
_LEAST_PAGE_SIZE: Final = 5_000
_MOST_PAGE_SIZE: Final = 100_000
_MOST_CHANGES: Final = 4_000
"""Of one call: a written row costs some fifty times as much as one that is only read, and stays locked."""


def next_page_size(page_size: int, examined: int, changed: int) -> int:
    """The rows to ask for after a page of so many, of which so many were examined and so many wrong.

    Pages grow while little is wrong, because each page reads much of the table again, and shrink where much
    has to be written, because the application waits for written rows until the page is over.
    """
    wanted = examined * _MOST_CHANGES // max(1, changed)
    return max(_LEAST_PAGE_SIZE, min(wanted, 2 * page_size, _MOST_PAGE_SIZE))
