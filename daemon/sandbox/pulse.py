"""The current state, for the live view: counts from the database, the listener's state from the daemon."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from psycopg import AsyncConnection, OperationalError

from priorityd.daemon.sandbox.queries import query

if TYPE_CHECKING:
    from collections.abc import Callable

_PERIOD_SECONDS = 1.0
_REQUEST_SECONDS = 0.5


@dataclass(frozen=True)
class Count:
    """How many tracked repositories have one flag and priority."""

    is_workspace_repo: bool
    priority: str
    repositories: int


@dataclass(frozen=True)
class Pulse:
    """The state at one moment; `listener` is None without a daemon, or while it does not answer."""

    counts: list[Count]
    memberships: int
    listener: str | None
    last_latency_seconds: float | None


async def watch(database_url: str, daemon_url: str | None, show: Callable[[Pulse], None]) -> None:
    """Show the state once a second until cancelled."""
    async with httpx.AsyncClient(timeout=_REQUEST_SECONDS, trust_env=False) as http:
        while True:
            try:
                async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
                    while True:
                        show(await _look(connection, http, daemon_url))
                        await asyncio.sleep(_PERIOD_SECONDS)
            except OperationalError:
                await asyncio.sleep(_PERIOD_SECONDS)


async def _look(connection: AsyncConnection[Any], http: httpx.AsyncClient, daemon_url: str | None) -> Pulse:
    rows = await (await connection.execute(query("pulse"))).fetchall()
    status = await _status(http, daemon_url) if daemon_url else {}
    return Pulse(
        counts=[Count(flag, priority, count) for flag, priority, count, _ in rows],
        memberships=rows[0][3] if rows else 0,
        listener=status.get("listener", {}).get("state"),
        last_latency_seconds=status.get("last_change", {}).get("latency_seconds"),
    )


async def _status(http: httpx.AsyncClient, daemon_url: str) -> dict[str, Any]:
    try:
        status = (await http.get(f"{daemon_url}/status")).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}
