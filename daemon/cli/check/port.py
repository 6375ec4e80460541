"""The part of `priorityd check` about the address of the daemon's own endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import httpx

from priorityd.core.errors import ConfigurationError
from priorityd.daemon.bounded_client import tls_context
from priorityd.daemon.cli.finding import Finding, from_error
from priorityd.daemon.cli.own_daemon import stranger
from priorityd.daemon.settings import Settings
from priorityd.daemon.status.http import listen

_STEP: Final = "metrics port"


async def port_finding(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the daemon can listen there, or already does."""
    address = f"{settings.http_host}:{settings.http_port}"
    if await _own_daemon(settings):
        yield Finding(_STEP, "ok", f"{address} is served by a running priorityd")
        return
    try:
        listen(settings.http_host, settings.http_port).close()
    except ConfigurationError as error:
        yield _unavailable(settings, error)
        return
    yield Finding(_STEP, "ok", f"{address} is free")


def _unavailable(settings: Settings, error: ConfigurationError) -> Finding:
    try:
        listen(settings.http_host, 0).close()
    except ConfigurationError:
        remedy = "Set PRIORITYD_HTTP_HOST to an address of this machine; 0.0.0.0 means all of them."
        return from_error(_STEP, error, remedy, "export PRIORITYD_HTTP_HOST=127.0.0.1")
    remedy = "Set PRIORITYD_HTTP_PORT to a free port; 0 takes any free one, and the log says which."
    return from_error(_STEP, error, remedy, "export PRIORITYD_HTTP_PORT=0")


async def _own_daemon(settings: Settings) -> bool:
    try:
        async with httpx.AsyncClient(timeout=2, trust_env=False, verify=tls_context()) as client:
            response = await client.get(f"{settings.http_url}/livez")
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return stranger(settings, response.headers.get("Server", "")) is None
