"""The walk over every tracked row, page by page: for the library and the resyncer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias
from uuid import UUID

from priorityd.core.call_size import CallSize
from priorityd.core.database.answers import RefusedRow, SyncAnswer, SyncResult
from priorityd.core.errors import PermanentError, TransientError

Page: TypeAlias = Callable[[UUID | None, int], Awaitable[SyncAnswer]]
"""Handles up to this many rows after this key; None is before the first."""

FIRST_PAGE_SIZE: Final = 250
"""Rows in the first call: all may be wrong, and it must not time out even where writing is slow."""
_MOST: Final = 100_000
_GROWTH: Final = 10.0
"""Each page reads much of the table again, so pages should be few."""
_AIM_SECONDS: Final = 0.5
"""How long a page should take: until it ends, the application waits for rows that the page has written."""


async def walk(
    make_page_right: Page,
    look_at_page: Page,
    page_size: int = FIRST_PAGE_SIZE,
    *,
    on_left: Callable[[Sequence[RefusedRow]], None] = lambda _: None,
) -> SyncResult:
    """Walk to the end, or to the first page that fails: earlier pages are done, and `errors` says why.

    A page that times out is retried with half as many rows. A row that alone takes too long is left, given
    to `on_left`, and counts as refused. `look_at_page` says what `make_page_right` would do, and does
    nothing.
    Raises only errors that make further calls pointless (`KeyRefusedError`, `ContractError`).
    """
    result = SyncResult()
    after: UUID | None = None
    size = CallSize(page_size, _MOST, _AIM_SECONDS, _GROWTH)
    while True:
        rows = size.rows
        try:
            answer = await make_page_right(after, rows)
        except TransientError as error:
            if error.reason == "timeout" and size.timed_out(rows):
                continue
            looked = await _look(look_at_page, after) if error.reason == "timeout" else None
            if looked is None:
                result.fail(str(error), unavailable=True)
                return result
            answer = looked.as_left(str(error))
            on_left(answer.refused)
        except PermanentError as error:
            result.fail(str(error))
            return result
        result.add(answer)
        size.answered(rows, answer.database_seconds)
        before, after = after, answer.next_after
        if after is None:
            return result
        if before is not None and after <= before:
            result.fail("the answers do not advance from page to page; are they cached on the way?")
            return result


async def _look(look_at_page: Page, after: UUID | None) -> SyncAnswer | None:
    """None where that fails as well: then the fault is not in the row."""
    try:
        return await look_at_page(after, 1)
    except (TransientError, PermanentError):
        return None
