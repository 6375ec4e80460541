"""The walk over every tracked row."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from priorityd.core.database.answers import SyncAnswer
from priorityd.core.errors import KeyRefusedError, PermanentError, TransientError
from priorityd.core.repair.walk import walk

FIRST, SECOND = UUID(int=1), UUID(int=2)


def no_time() -> float:
    return 0.0


def page(next_after: UUID | None) -> SyncAnswer:
    return SyncAnswer(10, 4, 6, 0, 3, (), datetime(2025, 1, 3, tzinfo=UTC), next_after=next_after)


async def test_goes_from_page_to_page_to_the_end() -> None:
    asked = []

    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        asked.append((after, limit))
        return page({None: FIRST, FIRST: SECOND}.get(after))

    result = await walk(make_page_right, no_time, 7000)
    assert [after for after, _ in asked] == [None, FIRST, SECOND]
    assert asked[0][1] == 7000
    assert (result.examined, result.priority_changes, result.errors) == (30, 9, [])


async def test_ends_at_the_page_that_fails_and_tells_what_went_before() -> None:
    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        if after is not None:
            raise PermanentError("no such column", reason="rejected")
        return page(FIRST)

    result = await walk(make_page_right, no_time)
    assert (result.examined, result.errors) == (10, ["no such column"])


async def test_a_key_that_is_refused_is_no_result() -> None:
    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        raise KeyRefusedError("no")

    with pytest.raises(KeyRefusedError):
        await walk(make_page_right, no_time)


async def test_a_page_that_times_out_is_tried_again_with_half_as_many_rows() -> None:
    asked = []

    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        asked.append((after, limit))
        if limit > 100:
            raise TransientError("too slow", reason="timeout")
        return page(FIRST if after is None else None)

    result = await walk(make_page_right, no_time, 250)
    assert asked[:3] == [(None, 250), (None, 125), (None, 62)]
    assert result.errors == []


async def test_a_row_that_takes_too_long_by_itself_ends_the_walk() -> None:
    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        raise TransientError("too slow", reason="timeout")

    result = await walk(make_page_right, no_time)
    assert (result.errors, result.unavailable) == (["too slow"], True)


async def test_pages_are_sized_by_the_time_they_take() -> None:
    asked, seconds = [], 0.0

    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        nonlocal seconds
        asked.append(limit)
        seconds += limit * 0.04
        return page(FIRST if len(asked) < 4 else None)

    await walk(make_page_right, lambda: seconds, 200)
    assert asked == [200, 12, 13, 12]
