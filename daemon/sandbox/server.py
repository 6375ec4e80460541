"""Serves REST and Realtime on the sandbox's one port, in the current event loop.

    async with serve_sandbox(database_url) as server:
        client = await acreate_client(server.url, server.service_role_key)

Loopback only, and plain HTTP: it is a stand-in for development.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from priorityd.daemon.sandbox.faults import Faults
from priorityd.daemon.sandbox.keys import Keys
from priorityd.daemon.sandbox.realtime.service import Realtime
from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings
from priorityd.daemon.sandbox.rest.service import Rest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from uvicorn._types import ASGISendEvent

HOST = "127.0.0.1"
_BACKLOG = 256
_GRACE_SECONDS = 2
_ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True)
class SandboxServer:
    """A running server; `url` and the keys are what a client needs.

    Tests disturb it with `faults`, `realtime` and `abort_sockets`. `rest_ready` returns when calls are
    answered, which takes a while after the database is back. `ended` is set when a part of it has failed;
    leaving the block then raises the error.
    """

    url: str
    keys: Keys
    faults: Faults
    realtime: Realtime
    abort_sockets: Callable[[], None]
    rest_ready: Callable[[], Awaitable[None]]
    ended: asyncio.Event

    @property
    def anon_key(self) -> str:
        """The key of the role `anon`."""
        return self.keys.anon

    @property
    def service_role_key(self) -> str:
        """The key of the role `service_role`."""
        return self.keys.service_role

    @property
    def secret_key(self) -> str:
        """The first secret key (`sb_secret_…`) of the role `service_role`."""
        return self.keys.secret_keys[0]


class PortError(OSError):
    """Something else listens on the port, or it is for root alone."""


def reserve_port(port: int) -> socket.socket:
    """A socket that listens on the port (0: any free one).

    Raises `PortError` naming the port. This lets the caller fail before it starts a database.
    """
    # asyncio disables Nagle's algorithm, which delays some answers by 40 ms, only if the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A port that was released a moment ago may be reused at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be had: {error.strerror}"
        raise PortError(error.errno, f"port {port} on {HOST} {why}") from error
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serve_sandbox(
    database_url: str,
    *,
    port: int = 0,
    keys: Keys | None = None,
    listener: socket.socket | None = None,
    faults: Faults | None = None,
    settings: RealtimeSettings | None = None,
) -> AsyncIterator[SandboxServer]:
    """Serve the database for the length of the block.

    `database_url` must be a superuser's; `listener` (from `reserve_port`) takes precedence over `port`.
    Raises `PortError`. When the block ends, WebSockets are closed with 1012, as by a restarting server.
    """
    keys = keys or Keys.create()
    listener = listener or reserve_port(port)
    faults = faults or Faults()
    realtime = Realtime(database_url, keys, faults, settings or RealtimeSettings())
    rest = Rest(database_url, keys, faults)
    server = _Server(_app(realtime, rest))
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    # Not a task group: it would wrap what the caller's block raises, and must be left by the same task.
    parts = [asyncio.create_task(part) for part in (realtime.run(), rest.run())]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    ended = asyncio.Event()
    for task in (serving, *parts):
        task.add_done_callback(lambda _: ended.set())
    try:
        await _start(server, rest, [serving, *parts])
        yield SandboxServer(url, keys, faults, realtime, server.abort_sockets, rest.ready, ended)
    finally:
        server.should_exit = True
        await asyncio.wait([serving])
        await _cancel(parts)
        listener.close()


async def _start(server: _Server, rest: Rest, parts: list[asyncio.Task[None]]) -> None:
    """Return when requests can be answered. A part that ends before has failed, and its error is raised."""
    starting = asyncio.create_task(_ready(server, rest))
    try:
        done, _ = await asyncio.wait([starting, *parts], return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            await part
    finally:
        starting.cancel()


async def _ready(server: _Server, rest: Rest) -> None:
    await server.has_started.wait()
    await rest.ready()


async def _cancel(parts: list[asyncio.Task[None]]) -> None:
    for part in parts:
        part.cancel()
    for outcome in await asyncio.gather(*parts, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


class _WebSocket(WebSocketsSansIOProtocol):
    """Uvicorn's, corrected: it takes a handshake answered with a refusal for one that was not answered."""

    async def send(self, message: ASGISendEvent) -> None:
        """Pass a message on to the client."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True


class _Server(uvicorn.Server):
    """Uvicorn within a running event loop: it signals when it has started, and handles no signals."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(_config(app))
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and set `has_started`."""
        await super().startup(sockets)
        self.has_started.set()

    def abort_sockets(self) -> None:
        """Drop every WebSocket without a closing handshake."""
        for connection in self.server_state.connections:
            if isinstance(connection, WebSocketsSansIOProtocol):
                connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers alone."""
        yield


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws=_WebSocket,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        # The real server sends no pings, leaving heartbeats to the client, and does not compress.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _app(realtime: Realtime, rest: Rest) -> Starlette:
    return Starlette(
        routes=[
            Route("/rest/v1/rpc/{function}", rest.call_function, methods=_ALL_METHODS),
            Route("/rest/v1/{table}", rest.use_table, methods=_ALL_METHODS),
            Route("/rest/v1{path:path}", rest.anything_else, methods=_ALL_METHODS),
            WebSocketRoute("/realtime/v1/websocket", realtime.endpoint),
        ]
    )
