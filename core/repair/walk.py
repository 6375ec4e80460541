"""The walk over every tracked row, a page at a time: of the library, and of the resyncer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias
from uuid import UUID

from priorityd.core.database.answers import SyncAnswer, SyncResult
from priorityd.core.errors import PermanentError, TransientError
from priorityd.core.repair.page_size import RESYNC_PAGE_SIZE, next_page_size

MakePageRight: TypeAlias = Callable[[UUID | None, int], Awaitable[SyncAnswer]]
"""Makes right the next so many rows after a key, None for the first."""


async def walk(make_page_right: MakePageRight, page_size: int = RESYNC_PAGE_SIZE) -> SyncResult:
    """Walk to the end, or to the first page that fails: what went before is done, and `errors` says why.

    Raises only errors that make every further call pointless (`KeyRefusedError`, `ContractError`).
    """
    result = SyncResult()
    after: UUID | None = None
    while True:
        try:
            answer = await make_page_right(after, page_size)
        except (TransientError, PermanentError) as error:
            result.errors.append(str(error))
            return result
        result.add(answer)
        after, page_size = answer.next_after, next_page_size(page_size, answer.examined, answer.changed)
        if after is None:
            return result
