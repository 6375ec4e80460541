"""The HTTP endpoints: read-only, small, and served from the daemon's own event loop.

If the loop is blocked they do not answer, and that is what a liveness probe should find.
"""

from __future__ import annotations

import html
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from core import __version__
from core.errors import ConfigurationError
from daemon.http_connection import TimedConnection

_PAGES: Final = (
    ("/metrics", "metrics for Prometheus"),
    ("/livez", "200 while the daemon's loops go round"),
    ("/readyz", "200 once priorities are true and kept so"),
    ("/status", "the daemon's state as JSON"),
)


@dataclass(frozen=True, slots=True)
class Probes:
    """What the endpoints ask the daemon. A probe answers the reasons against, so an empty list is good."""

    not_alive: Callable[[], list[str]]
    not_ready: Callable[[], list[str]]
    status: Callable[[], dict[str, Any]]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ConfigurationError` naming the setting when the address can't be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"PRIORITYD_HTTP_HOST, PRIORITYD_HTTP_PORT: can't listen on {host}:{port}: {reason}"
        ) from None
    return listener


async def serve(listener: socket.socket, registry: CollectorRegistry, probes: Probes) -> None:
    """Serve until cancelled."""
    config = uvicorn.Config(
        _application(registry, probes),
        http=TimedConnection,
        access_log=False,
        log_config=None,
        lifespan="off",
        limit_concurrency=64,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    finally:
        # Cancelled: let answers that are under way go out, and close the connections.
        with anyio.CancelScope(shield=True):
            await server.shutdown(sockets=[listener])


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: they are the daemon's."""
        yield


def _application(registry: CollectorRegistry, probes: Probes) -> Starlette:
    def probe(reasons: Callable[[], list[str]]) -> Callable[[Request], Response]:
        def answer(_: Request) -> Response:
            against = reasons()
            return PlainTextResponse("\n".join(against or ["ok"]) + "\n", status_code=503 if against else 200)

        return answer

    async def status(_: Request) -> Response:
        return JSONResponse(probes.status())

    async def metrics(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(registry), media_type=content_type)

    async def landing_page(_: Request) -> Response:
        return HTMLResponse(_landing_page())

    return Starlette(
        routes=[
            Route("/", landing_page, methods=["GET"]),
            Route("/livez", _asynchronous(probe(probes.not_alive)), methods=["GET"]),
            Route("/readyz", _asynchronous(probe(probes.not_ready)), methods=["GET"]),
            Route("/status", status, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ]
    )


def _asynchronous(answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
    # A plain function would be run in a thread, where the daemon's state may not be read.
    async def endpoint(request: Request) -> Response:
        return answer(request)

    return endpoint


def _landing_page() -> str:
    items = "".join(f'<li><a href="{path}">{path}</a> – {html.escape(text)}</li>' for path, text in _PAGES)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>priorityd</title>'
        '<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}'
        "body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:40rem;padding:0 1rem}</style>"
        f"<h1>priorityd {html.escape(__version__)}</h1><ul>{items}</ul></html>"
    )
