"""What can break, by name. A fault is a context manager: entering it breaks something, leaving it heals that.

Any of them may be in force together, so none relies on another part being there while it heals.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final
from uuid import uuid4

import httpx
import psycopg

from tests.chaos.database import connect, insist
from tests.chaos.floods import burst, flap_once, flapping, in_background
from tests.chaos.proxy import Mode
from tests.chaos.world import World

_LOCKED_ROWS: Final = 30
_EXTRA_PLACE: Final = 1000
_CONTENTION = "status=500&message=try+again&sqlstate="


Fault = Callable[[World], AbstractAsyncContextManager[None]]


async def _hook(world: World, path: str) -> None:
    headers = {"apikey": world.server.service_role_key}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
        (await client.post(f"{world.server.url}/sandbox/v1/{path}")).raise_for_status()


@asynccontextmanager
async def _closed(world: World, how: str) -> AsyncIterator[None]:
    await _hook(world, f"realtime/{how}")
    yield


@asynccontextmanager
async def _hooked(world: World, path: str) -> AsyncIterator[None]:
    await _hook(world, f"{path}&seconds=3600" if "?" in path else f"{path}?seconds=3600")
    try:
        yield
    finally:
        await _hook(world, f"{path.partition('?')[0]}?seconds=0")


@asynccontextmanager
async def _proxied(world: World, mode: Mode) -> AsyncIterator[None]:
    await world.proxy.set(mode, on=True)
    try:
        yield
    finally:
        await world.proxy.set(mode, on=False)


@asynccontextmanager
async def _answered(world: World, head: str, body: str) -> AsyncIterator[None]:
    world.proxy.canned = (
        f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    )
    async with _proxied(world, "answered"):
        yield


@asynccontextmanager
async def _reset(world: World) -> AsyncIterator[None]:
    world.proxy.reset_all()
    yield


@asynccontextmanager
async def _terminated(world: World, which: str) -> AsyncIterator[None]:
    await insist(
        world.url,
        "select pg_terminate_backend(pid) from pg_stat_activity"
        f" where datname = current_database() and pid <> pg_backend_pid() and {which}",
    )
    yield


@asynccontextmanager
async def _postgres_stopped(world: World) -> AsyncIterator[None]:
    await asyncio.to_thread(world.postgres.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(world.postgres.start)


@asynccontextmanager
async def _rows_locked(world: World) -> AsyncIterator[None]:
    ids = [world.repository() for _ in range(_LOCKED_ROWS)]
    with contextlib.suppress(psycopg.Error):
        async with await connect(world.url) as connection, connection.transaction(force_rollback=True):
            await connection.execute(
                "select from tracked_repositories where repository_id = any (%s)"
                " order by id for update skip locked",
                (ids,),
            )
            yield
            return
    yield


@asynccontextmanager
async def _row_poisoned(world: World) -> AsyncIterator[None]:
    repository = world.repository()
    await insist(world.url, "insert into chaos_poison values (%s) on conflict do nothing", (repository,))
    try:
        with contextlib.suppress(psycopg.Error):
            async with await connect(world.url) as connection:
                await flap_once(connection, repository, uuid4())
        yield
    finally:
        await insist(world.url, "delete from chaos_poison where repository_id = %s", (repository,))


@asynccontextmanager
async def _daemon_killed(world: World) -> AsyncIterator[None]:
    await world.fleet.kill(world.chance.choice(sorted(world.fleet.running) or [0]))
    yield


@asynccontextmanager
async def _daemon_stopped(world: World) -> AsyncIterator[None]:
    place = world.chance.choice(sorted(world.fleet.running) or [0])
    world.fleet.signal(place, signal.SIGSTOP)
    try:
        yield
    finally:
        world.fleet.signal(place, signal.SIGCONT)


@asynccontextmanager
async def _second_daemon(world: World) -> AsyncIterator[None]:
    """One more, which ends by SIGKILL."""
    async with in_background(world.fleet.keep(_EXTRA_PLACE)):
        yield


FAULTS: Final[dict[str, Fault]] = {
    **{f"realtime_close_{code}": partial(_closed, how=f"close?code={code}") for code in (1000, 1001, 1012)},
    "realtime_abort": partial(_closed, how="abort"),
    "realtime_silence": partial(_hooked, path="realtime/silence"),
    "realtime_refuse": partial(_hooked, path="realtime/refuse"),
    "rest_503": partial(_hooked, path="rest/fail?status=503"),
    "rest_57014": partial(_hooked, path=f"rest/fail?{_CONTENTION}57014"),
    "rest_55P03": partial(_hooked, path=f"rest/fail?{_CONTENTION}55P03"),
    "rest_40P01": partial(_hooked, path=f"rest/fail?{_CONTENTION}40P01"),
    "rest_53300": partial(_hooked, path=f"rest/fail?{_CONTENTION}53300"),
    "rest_PGRST202": partial(_hooked, path="rest/fail?status=404&sqlstate=PGRST202&message=no+function"),
    "rest_429": partial(_answered, head="429 Too Many Requests\r\nRetry-After: 2", body="slow down"),
    "rest_garbage": partial(_answered, head="200 OK\r\nContent-Type: application/json", body='{"changes": ['),
    **{
        f"proxy_{mode}": partial(_proxied, mode=mode)
        for mode in ("refused", "frozen", "half_open", "slow", "cut_before", "cut_after", "truncated")
    },
    "proxy_reset": _reset,
    "replication_terminated": partial(
        _terminated, which="pid in (select active_pid from pg_replication_slots)"
    ),
    "backends_terminated": partial(_terminated, which="backend_type <> 'autovacuum worker'"),
    "postgres_stopped": _postgres_stopped,
    "rows_locked": _rows_locked,
    "row_poisoned": _row_poisoned,
    "daemon_killed": _daemon_killed,
    "daemon_stopped": _daemon_stopped,
    "second_daemon": _second_daemon,
    "flapping": flapping,
    "burst": burst,
}
"""Every fault by its name in the summary."""
