"""What one large answer may cost the others."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import httpx

from priorityd.daemon.bounded_client import MAX_ANSWER_BYTES, _whole

MIB = 1024 * 1024


async def test_others_take_their_turns_while_an_answer_is_unpacked() -> None:
    """All of it comes with one read of the socket."""
    text, turns = bytes(MAX_ANSWER_BYTES), 0

    async def packed() -> AsyncIterator[bytes]:
        yield gzip.compress(text)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    response = httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=packed())
    response.request = httpx.Request("GET", "http://supabase.example")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take_turns)
        assert (await _whole(response)).content == text
        tasks.cancel_scope.cancel()
    assert turns >= len(text) // MIB
