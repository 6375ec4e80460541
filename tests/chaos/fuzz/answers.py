"""Nonsense in the answers of RPCs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import UUID, uuid4

from priorityd.core.errors import PriorityError
from priorityd.daemon.database.store import Store, open_store
from tests.chaos.fuzz.nonsense import Mixture
from tests.chaos.fuzz.odd_answers import ANSWERS
from tests.chaos.fuzz.outcome import Outcome

_CALLERS: Final = 32
_GOOD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + b'{"beat_at": "2025-01-03T00:00:00+00:00"}    '
)

Call = Callable[[Store], Awaitable[Any]]

_CALLS: Final[tuple[Call, ...]] = (
    lambda store: store.sync([uuid4()], "event"),
    lambda store: store.sweep("sweep", 100),
    lambda store: store.resync_page(None, 100, "resync"),
    lambda store: store.priorities([uuid4()]),
    lambda store: store.workspace_count(uuid4()),
    lambda store: store.workspace_repository_ids(None, 100),
    lambda store: store.set_manual_priority(uuid4(), "low"),
    lambda store: store.snapshot(),
    lambda store: store.rollback(),
    lambda store: store.beat(uuid4()),
    lambda store: store.check(),
    lambda store: store.schema_version(),
)


async def send_answers(count: int, chance: random.Random, outcome: Outcome) -> None:
    """Give this number of answers to a store that is called at random; then it must accept a good one."""
    source = _Source(count, chance)
    async with (
        source.serving() as url,
        open_store(
            url, "a.b.c", on_error=lambda reason: outcome.calls.update([f"attempt: {reason}"])
        ) as store,
    ):
        async with asyncio.TaskGroup() as callers:
            for _ in range(min(_CALLERS, count)):
                callers.create_task(_call(store, source, random.Random(chance.random()), outcome))
        try:
            await store.beat(UUID(int=0))
        except PriorityError as error:
            outcome.crashed(f"a good answer was not taken: {error!r}")
    outcome.answers, outcome.answers_total = source.mixture.counts, count


async def _call(store: Store, source: _Source, chance: random.Random, outcome: Outcome) -> None:
    while source.left:
        try:
            await chance.choice(_CALLS)(store)
        except PriorityError as error:
            outcome.calls[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 - any other is a finding
            outcome.crashed(error)
        else:
            outcome.calls["well-formed"] += 1


class _Source:
    """A server that answers requests with nonsense, and at the end correctly."""

    def __init__(self, count: int, chance: random.Random) -> None:
        self.left = count
        self.mixture = Mixture(ANSWERS, chance)
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its URL, for the length of the block."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            # The client has closed its connections by now.
            await asyncio.gather(*self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with suppress(OSError, asyncio.IncompleteReadError):
            while await _read_request(reader):
                if not self.left:
                    writer.write(_GOOD)
                    await writer.drain()
                    continue
                self.left -= 1
                kind, answer = self.mixture.draw()
                writer.write(answer)
                await writer.drain()
                if kind in _ENDS:
                    break
        writer.close()


# Answers that leave the client waiting for more, or unsure where the next answer begins, end the connection.
_ENDS: Final = ("shorter_than_said", "no_http", "odd_headers")


async def _read_request(reader: asyncio.StreamReader) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    await reader.readexactly(length)
    return True
