"""The HTTP endpoints are read-only, bounded, and survive malformed, frequent and unfinished requests."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import anyio
import psutil
import pytest

from tests.support.daemon_process import ENDPOINTS, Daemon
from tests.support.patience import PATIENCE_SECONDS
from tests.support.stack import Stack

METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "X" * 300)
A_MOMENT_SECONDS = 0.5
"""For what may never come: half a request."""
MOST_GROWTH_BYTES = 20 * 1024 * 1024
GARBAGE = (
    b"\x00\xff\xfe garbage \r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"z" * 100_000,
    b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n" + b"z" * 100_000,
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://127.0.0.1:22/ HTTP/1.1\r\nHost: x\r\n\r\n",
)


def ask(port: int, request: bytes, patience_seconds: float = PATIENCE_SECONDS) -> bytes:
    """What comes for these bytes, up to the end or until nothing more does."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        try:
            connection.sendall(request)
            connection.settimeout(patience_seconds)
            while piece := connection.recv(65536):
                answer += piece
        except OSError:
            return answer
    return answer


async def all_answer(daemon: Daemon) -> bool:
    return all([await daemon.answers(path, 200) for path in ENDPOINTS])


async def test_no_method_but_get_and_head_is_taken(stack: Stack) -> None:
    async with stack.daemon() as daemon:
        for path in ENDPOINTS:
            for method in METHODS:
                request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                answer = await anyio.to_thread.run_sync(ask, daemon.port, request)
                assert answer.startswith((b"HTTP/1.1 405", b"HTTP/1.1 400")), (method, path, answer[:100])
        assert await all_answer(daemon)
        assert await daemon.metric("resyncs_total", kind="full") == 1


@pytest.mark.long
async def test_garbage_is_survived_without_growing(stack: Stack) -> None:
    chance = random.Random(1)
    noise = [chance.randbytes(chance.randrange(1, 3000)) for _ in range(20)]
    async with stack.daemon() as daemon:
        assert await all_answer(daemon)
        process = psutil.Process(daemon.process.pid)
        before = process.memory_info().rss
        for request in (*GARBAGE, *noise):
            answer = await anyio.to_thread.run_sync(ask, daemon.port, request, A_MOMENT_SECONDS)
            assert not (request.startswith(b"POST") and answer.startswith(b"HTTP/1.1 2")), request[:80]
            assert await daemon.answers("/livez", 200)
        assert await all_answer(daemon)
        assert process.memory_info().rss - before < MOST_GROWTH_BYTES


@contextmanager
def holding(port: int, count: int, *said: bytes) -> Iterator[None]:
    """So many connections, which said the beginning of a request and no more."""
    with ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(said[number % len(said)])
        yield


async def test_whoever_holds_connections_without_asking_keeps_nobody_out(stack: Stack) -> None:
    begun = (
        b"",
        b"GET /livez HTTP/1.1\r\nX",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTT",
        b"POST / HTTP/1.1\r\n",
    )
    async with stack.daemon() as daemon:
        assert await all_answer(daemon)
        with holding(daemon.port, 200, *begun):
            for path in ENDPOINTS:
                answer = await daemon.get(path)
                assert answer is not None, path
                # A machine that is busy with something else may be why it is not ready.
                assert answer.status_code == 200 or path == "/readyz", path
