"""A store whose server gives the answers that a test specifies."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import SocketStream

from priorityd.daemon.database.store import Store, open_store

Answer = bytes | Callable[[SocketStream], Any]


def http(status: int, body: object, *headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Length: {len(content)}",
        "Content-Type: application/json",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\nConnection: close\r\n\r\n" + content


GOOD = http(200, {"beat_at": "2025-01-03T00:00:00+00:00"})


@asynccontextmanager
async def answering(*answers: Answer) -> AsyncIterator[tuple[Store, list[str]]]:
    """A store whose server gives these answers, one per request, and then repeats the last."""
    reasons: list[str] = []
    async with (
        saying(*answers) as port,
        open_store(f"http://127.0.0.1:{port}", "a.b.c", on_error=reasons.append) as store,
    ):
        yield store, reasons


@asynccontextmanager
async def saying(*answers: Answer) -> AsyncIterator[int]:
    """The port of a server that gives these answers, one per request, and then repeats the last."""
    left = list(answers)

    async def serve(connection: SocketStream) -> None:
        # A client may give up before its request has arrived, or before its answer was sent.
        gone = (anyio.EndOfStream, anyio.BrokenResourceError)
        async with connection:
            with contextlib.suppress(*gone):
                await connection.receive()
                await say(connection)

    async def say(connection: SocketStream) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, bytes):
            await connection.send(answer)
        else:
            await answer(connection)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield port
        tasks.cancel_scope.cancel()


async def hang_up(connection: SocketStream) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{")


async def say_nothing(connection: SocketStream) -> None:
    with contextlib.suppress(anyio.EndOfStream):
        await connection.receive()
