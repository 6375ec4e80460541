"""The HTTP endpoints: read-only, small, and served from a thread of their own.

So metrics can be scraped while the daemon's event loop is busy, and `/livez` can report that it is blocked
instead of not answering. What the endpoints show belongs to that loop, which is asked for it through
`LoopGate`; metrics have their own locks.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final

import anyio
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from priorityd.core.errors import ConfigurationError
from priorityd.daemon.clock import utc_now
from priorityd.daemon.status.loop_gate import STALLED_AFTER_SECONDS, LoopBusyError, LoopGate

if TYPE_CHECKING:
    from priorityd.daemon.status.report import Report

_FRESH_SECONDS: Final = 0.25
"""How long a scrape waits for gauges that the event loop has to read; after that it shows their old
values."""
_END_SECONDS: Final = 3.0
_EACH_SECOND: Final = 0
"""A number of uvicorn's tick at which it updates the date."""


@dataclass(frozen=True, slots=True)
class Probes:
    """What the endpoints ask the daemon, in its event loop.

    `not_alive` and `not_ready` return the reasons why it is not, so an empty list is good. `refresh` updates
    the gauges that have to be read. `identity` is sent with every answer, in the header `Server`. Only
    `blocked` is called in the server's own thread: at a scrape while the event loop is blocked.
    """

    not_alive: Callable[[], list[str]]
    not_ready: Callable[[], list[str]]
    status: Callable[[], Report]
    refresh: Callable[[], None] = lambda: None
    blocked: Callable[[], None] = lambda: None
    identity: str = "priorityd"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ConfigurationError`, naming the settings, if the address can't be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with ExitStack() as on_failure:
            listener = on_failure.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
            on_failure.pop_all()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"PRIORITYD_HTTP_HOST, PRIORITYD_HTTP_PORT: can't listen on {host}:{port}: {reason}"
        ) from None
    return listener


async def serve(listener: socket.socket, registry: CollectorRegistry, probes: Probes) -> None:
    """Serve until cancelled."""
    gate = LoopGate()
    config = uvicorn.Config(
        _Endpoints(gate, registry, probes).application(),
        http="h11",
        access_log=False,
        log_config=None,
        lifespan="off",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=1,
        server_header=False,
        headers=[("Server", probes.identity)],
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gate.run)
        await _serve_in_thread(_Server(config), listener)


async def _serve_in_thread(server: _Server, listener: socket.socket) -> None:
    ended: Future[None] = Future()

    def work() -> None:
        try:
            asyncio.run(server.serve(sockets=[listener]))
        except BaseException as error:
            ended.set_exception(error)
            raise
        ended.set_result(None)

    # A daemon thread: should it ever hang, it does not keep the process from ending.
    threading.Thread(target=work, name="http", daemon=True).start()
    waiting = asyncio.wrap_future(ended)
    try:
        await asyncio.shield(waiting)
        raise RuntimeError("the HTTP server has ended unexpectedly")
    finally:
        # When cancelled: finish answers that are under way, and close the connections.
        server.end()
        with anyio.move_on_after(_END_SECONDS, shield=True):
            await asyncio.shield(waiting)


class _Server(uvicorn.Server):
    _end: Callable[[], object] | None = None

    def end(self) -> None:
        """Stop serving; for any thread."""
        self.should_exit = True
        if self._end is not None:
            self._end()

    async def main_loop(self) -> None:
        """Update the date in the headers each second.

        uvicorn's own loop turns ten times a second, which is half of what an idle daemon does.
        """
        ended = asyncio.Event()
        self._end = partial(asyncio.get_running_loop().call_soon_threadsafe, ended.set)
        while not await self.on_tick(_EACH_SECOND):
            with anyio.move_on_after(1):
                await ended.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: they are the daemon's."""
        yield


class _Endpoints:
    """The routes. All of this runs in the server's thread."""

    def __init__(self, gate: LoopGate, registry: CollectorRegistry, probes: Probes) -> None:
        self._gate = gate
        self._registry = registry
        self._probes = probes

    def application(self) -> Starlette:
        routes = {
            "/": self._page,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/status": self._status,
            "/metrics": self._metrics,
        }
        return Starlette(routes=[Route(path, answer, methods=["GET"]) for path, answer in routes.items()])

    async def _livez(self, _: Request) -> Response:
        try:
            return _verdict(await self._gate.ask(self._probes.not_alive))
        except LoopBusyError:
            return _verdict([f"the event loop has not turned for {self._gate.stalled_seconds():.0f} s"])

    async def _readyz(self, _: Request) -> Response:
        try:
            return _verdict(await self._gate.ask(self._probes.not_ready))
        except LoopBusyError:
            return _verdict(["the event loop does not answer"])

    async def _metrics(self, request: Request) -> Response:
        # Counters are up to date even if the gauges are late.
        with suppress(LoopBusyError):
            await self._gate.ask(self._probes.refresh, _FRESH_SECONDS)
        if self._gate.stalled_seconds():
            self._probes.blocked()
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self._registry), media_type=content_type)

    async def _report(self) -> Report:
        # Building its models takes longer than everything else in the daemon together. So they are imported
        # for the first request, and not in the daemon's event loop.
        with anyio.move_on_after(STALLED_AFTER_SECONDS) as importing:
            await anyio.to_thread.run_sync(
                import_module, "priorityd.daemon.status.status", abandon_on_cancel=True
            )
        if importing.cancelled_caught:
            raise LoopBusyError
        return await self._gate.ask(self._probes.status)

    async def _status(self, _: Request) -> Response:
        try:
            report = await self._report()
        except LoopBusyError:
            return JSONResponse({"error": "the event loop does not answer"}, status_code=503)
        return Response(report.model_dump_json(), media_type="application/json")

    async def _page(self, _: Request) -> Response:
        # Imported only here: most daemons' pages are never looked at, and all daemons should start quickly.
        from priorityd.daemon.status.page import CONTENT_SECURITY_POLICY, render, render_busy

        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"}
        try:
            report = await self._report()
        except LoopBusyError:
            return HTMLResponse(render_busy(), status_code=503, headers=headers)
        return HTMLResponse(render(report, utc_now()), headers=headers)


def _verdict(reasons: list[str]) -> Response:
    return PlainTextResponse("\n".join(reasons or ["ok"]) + "\n", status_code=503 if reasons else 200)
