"""The sandbox's servers for a test, in a thread of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from anyio.from_thread import BlockingPortal, start_blocking_portal

from priorityd.daemon.sandbox.faults import Faults
from priorityd.daemon.sandbox.keys import Keys
from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings
from priorityd.daemon.sandbox.server import SandboxServer, serve_sandbox


@dataclass(frozen=True)
class Servers(SandboxServer):
    """Running servers; `portal` leads into their event loop."""

    portal: BlockingPortal

    def do(self, act: Callable[[], None]) -> None:
        """Do this in the servers' event loop, and wait for it."""
        self.portal.call(act)


@asynccontextmanager
async def start_servers(
    database_url: str,
    *,
    port: int = 0,
    keys: Keys | None = None,
    faults: Faults | None = None,
    settings: RealtimeSettings | None = None,
) -> AsyncIterator[Servers]:
    """`serve_sandbox` beside the test instead of in its event loop.

    A test's statement may wait for a lock that a call to the servers holds. In one event loop it would keep
    that call from ever ending its transaction.
    """
    serving = serve_sandbox(database_url, port=port, keys=keys, faults=faults, settings=settings)
    with start_blocking_portal() as portal:
        manager = portal.wrap_async_context_manager(serving)
        server = await asyncio.to_thread(manager.__enter__)
        try:
            yield _beside(server, portal)
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)


def _beside(server: SandboxServer, portal: BlockingPortal) -> Servers:
    servers = Servers(**vars(server), portal=portal)
    return replace(servers, rest_ready=lambda: asyncio.to_thread(portal.call, server.rest_ready))
