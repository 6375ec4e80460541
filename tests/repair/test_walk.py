"""The walk over every tracked row."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from priorityd.core.database.answers import PriorityUpdate, RefusedRow, SyncAnswer
from priorityd.core.errors import KeyRefusedError, PermanentError, TransientError
from priorityd.core.repair.walk import walk

FIRST, SECOND = UUID(int=1), UUID(int=2)


async def no_look(after: UUID | None, limit: int) -> SyncAnswer:
    raise TransientError("too slow to look", reason="timeout")


def page(next_after: UUID | None, *changes: PriorityUpdate) -> SyncAnswer:
    return SyncAnswer(10, 4, 6, 0, 3, changes, datetime(2025, 1, 3, tzinfo=UTC), next_after=next_after)


async def test_goes_from_page_to_page_to_the_end() -> None:
    asked = []

    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        asked.append((after, limit))
        return page({None: FIRST, FIRST: SECOND}.get(after))

    result = await walk(make_page_right, no_look, 7000)
    assert [after for after, _ in asked] == [None, FIRST, SECOND]
    assert asked[0][1] == 7000
    assert (result.examined, result.priority_changes, result.errors) == (30, 9, [])


async def test_ends_at_the_page_that_fails_and_tells_what_went_before() -> None:
    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        if after is not None:
            raise PermanentError("no such column", reason="rejected")
        return page(FIRST)

    result = await walk(make_page_right, no_look)
    assert (result.examined, result.errors) == (10, ["no such column"])


async def test_a_key_that_is_refused_is_no_result() -> None:
    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        raise KeyRefusedError("no")

    with pytest.raises(KeyRefusedError):
        await walk(make_page_right, no_look)


async def test_a_page_that_times_out_is_tried_again_with_half_as_many_rows() -> None:
    asked = []

    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        asked.append((after, limit))
        if limit > 100:
            raise TransientError("too slow", reason="timeout")
        return page(FIRST if after is None else None)

    result = await walk(make_page_right, no_look, 250)
    assert asked[:3] == [(None, 250), (None, 125), (None, 62)]
    assert result.errors == []


async def test_where_looking_takes_too_long_as_well_it_is_no_row_and_ends_the_walk() -> None:
    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        raise TransientError("too slow", reason="timeout")

    result = await walk(make_page_right, no_look)
    assert (result.errors, result.unavailable) == (["too slow"], True)


async def test_a_row_that_takes_too_long_by_itself_is_left_and_the_walk_goes_on() -> None:
    slow = PriorityUpdate(FIRST, FIRST, "medium", "high", True, 1, 0, "acme/slow")
    left: list[RefusedRow] = []

    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        if after is None:
            raise TransientError("too slow", reason="timeout")
        return page(None)

    async def look_at_page(after: UUID | None, limit: int) -> SyncAnswer:
        assert (after, limit) == (None, 1)
        return page(FIRST, slow)

    result = await walk(make_page_right, look_at_page, on_left=left.extend)
    assert [(row.shown_as, row.reason) for row in left] == [(slow.shown_as, "too slow")]
    assert (result.refused, result.errors, result.priority_changes) == (left, [], 3)


async def test_answers_that_do_not_go_on_end_the_walk() -> None:
    asked = []

    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        asked.append(after)
        return page(FIRST)

    result = await walk(make_page_right, no_look)
    assert asked == [None, FIRST]
    assert "do not advance" in result.errors[0]


async def test_pages_are_sized_by_the_time_they_take_the_database() -> None:
    asked = []

    async def make_page_right(after: UUID | None, limit: int) -> SyncAnswer:
        asked.append(limit)
        answer = page(UUID(int=len(asked)) if len(asked) < 4 else None)
        return replace(answer, database_seconds=limit * 0.04)

    await walk(make_page_right, no_look, 200)
    assert asked == [200, 12, 13, 12]
