"""How each part is broken and healed: each breakage is a context manager, in force until it is left.

Any of them may be in force at the same time, so none relies on other parts when it heals.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import psutil
import psycopg

from tests.chaos.database import connect, insist
from tests.chaos.floods import flap_once, in_background
from tests.chaos.world import World
from tests.support.faults import misbehave
from tests.support.proxy import Mode

Breakage = Callable[[World], AbstractAsyncContextManager[None]]

_LOCKED_ROWS: Final = 30
_EXTRA_PLACE: Final = 1000
_CRASH_SECONDS: Final = 30
_FLAP_SECONDS: Final = (0.3, 3.0)
WRONG_SECRET: Final[dict[str, Any]] = {
    "status": 401,
    "sqlstate": "PGRST301",
    "message": "No suitable key or wrong key type",
}


@asynccontextmanager
async def misbehaving(world: World, path: str, **parameters: Any) -> AsyncIterator[None]:
    """The server does something bad once."""
    misbehave(world.server, path, **parameters)
    yield


@asynccontextmanager
async def hooked(world: World, path: str, *, close: bool = False, **parameters: Any) -> AsyncIterator[None]:
    """The server misbehaves all the time; with `close`, its sockets are closed first, so that it matters."""
    misbehave(world.server, path, **parameters, seconds=3600)
    if close:
        misbehave(world.server, "realtime/close", code=1001)
    try:
        yield
    finally:
        misbehave(world.server, path, **parameters, seconds=0)


@asynccontextmanager
async def key_flapping(world: World) -> AsyncIterator[None]:
    """The key is refused, accepted again, and so on: by the gateway, or as signed with another secret."""
    async with in_background(_flap_key(world)):
        yield


async def _flap_key(world: World) -> None:
    refusals: tuple[Breakage, ...] = (
        gateway_refuses,
        partial(hooked, path="rest/fail", **WRONG_SECRET),
    )
    while True:
        async with world.chance.choice(refusals)(world):
            misbehave(world.server, "realtime/close", code=1001)
            await asyncio.sleep(world.chance.uniform(*_FLAP_SECONDS))
        await asyncio.sleep(world.chance.uniform(*_FLAP_SECONDS))


@asynccontextmanager
async def gateway_refuses(world: World) -> AsyncIterator[None]:
    """The daemons' key is no longer one of the project's."""
    key = world.server.secret_key
    world.server.keys.delete_secret_key(key)
    try:
        yield
    finally:
        world.server.keys.secret_keys.append(key)


@asynccontextmanager
async def cache_is_slow(world: World) -> AsyncIterator[None]:
    """After a migration, until PostgREST has loaded its cache: it is stale, then empty, then new."""
    phases = (
        {"status": 404, "sqlstate": "42883", "message": "function public.sync_workspace_priorities is gone"},
        {"status": 503, "sqlstate": "PGRST002", "message": "Could not query the database for the cache."},
        {"status": 404, "sqlstate": "PGRST202", "message": "Could not find the function in the cache"},
    )
    async with in_background(_go_through(world, phases)):
        try:
            yield
        finally:
            misbehave(world.server, "rest/fail", name="cache", seconds=0)


async def _go_through(world: World, phases: Sequence[Mapping[str, object]]) -> None:
    for phase in phases:
        misbehave(world.server, "rest/fail", name="cache", **phase, seconds=3600)
        await asyncio.sleep(world.chance.uniform(*_FLAP_SECONDS))


@asynccontextmanager
async def resubscribed(world: World) -> AsyncIterator[None]:
    """Events are lost until there is a new slot; another `system` ok is the only sign of it."""
    misbehave(world.server, "realtime/resubscribe", seconds=world.chance.uniform(0, 3))
    yield


@asynccontextmanager
async def proxied(world: World, mode: Mode) -> AsyncIterator[None]:
    await world.proxy.set(mode, on=True)
    try:
        yield
    finally:
        await world.proxy.set(mode, on=False)


@asynccontextmanager
async def answered(world: World, head: str, body: str) -> AsyncIterator[None]:
    """Every REST request gets this answer."""
    text = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    world.proxy.canned[text] = text.encode()
    try:
        yield
    finally:
        world.proxy.canned.pop(text, None)


@asynccontextmanager
async def reset(world: World) -> AsyncIterator[None]:
    world.proxy.reset_all()
    yield


@asynccontextmanager
async def terminated(world: World, which: str) -> AsyncIterator[None]:
    await insist(
        world.url,
        "select pg_terminate_backend(pid) from pg_stat_activity"
        f" where datname = current_database() and pid <> pg_backend_pid() and {which}",
    )
    yield


@asynccontextmanager
async def postgres_stopped(world: World) -> AsyncIterator[None]:
    """It ends when PostgREST has noticed its end, which takes longer the longer it lasted."""
    async with world.postgres_lock:
        await asyncio.to_thread(world.postgres.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(world.postgres.start)
            await world.server.rest_ready()


@asynccontextmanager
async def postgres_is_a_standby(world: World) -> AsyncIterator[None]:
    """As in the middle of a failover: the database answers but accepts no writes."""
    async with world.postgres_lock:
        await asyncio.to_thread(world.postgres.stop)
        (world.postgres.data_dir / "standby.signal").touch()
        await asyncio.to_thread(world.postgres.start)
        try:
            yield
        finally:
            await insist(world.url, "select pg_promote() where pg_is_in_recovery()")


@asynccontextmanager
async def postgres_frozen(world: World) -> AsyncIterator[None]:
    """All of PostgreSQL's processes are stopped: connections stay open, but nothing answers."""
    async with world.postgres_lock:
        pid_file = world.postgres.data_dir / "postmaster.pid"
        postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
        stopped = [postmaster, *postmaster.children(recursive=True)]
        _signal(stopped, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(stopped, signal.SIGCONT)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@asynccontextmanager
async def postgres_restarted(world: World) -> AsyncIterator[None]:
    async with postgres_stopped(world):
        pass
    yield


@asynccontextmanager
async def postgres_crashed(world: World) -> AsyncIterator[None]:
    """An immediate shutdown: the next start recovers from the log."""
    async with world.postgres_lock:
        pid_file = world.postgres.data_dir / "postmaster.pid"
        await asyncio.to_thread(_crash, int(pid_file.read_text().split()[0]))
        await asyncio.to_thread(world.postgres.start)
    yield


def _crash(postmaster: int) -> None:
    process = psutil.Process(postmaster)
    process.send_signal(signal.SIGQUIT)
    process.wait(_CRASH_SECONDS)


@asynccontextmanager
async def rows_locked(world: World) -> AsyncIterator[None]:
    """A user's transaction holds rows."""
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
async def row_poisoned(world: World) -> AsyncIterator[None]:
    """A repository's row, if there is one, is wrong and can't be written."""
    repository = world.repository()
    async with poisoned(world, repository):
        with contextlib.suppress(psycopg.Error):
            async with await connect(world.url) as connection:
                await flap_once(connection, repository, uuid4())
        yield


@asynccontextmanager
async def poisoned(world: World, repository: UUID) -> AsyncIterator[None]:
    """This repository's row can't be written."""
    await insist(world.url, "insert into chaos_poison values (%s) on conflict do nothing", (repository,))
    try:
        yield
    finally:
        await insist(world.url, "delete from chaos_poison where repository_id = %s", (repository,))


@asynccontextmanager
async def daemon_killed(world: World) -> AsyncIterator[None]:
    await world.fleet.kill(world.chance.choice(sorted(world.fleet.running) or [0]))
    yield


@asynccontextmanager
async def daemon_stopped(world: World) -> AsyncIterator[None]:
    daemon = world.fleet.running.get(world.chance.choice(sorted(world.fleet.running) or [0]))
    world.fleet.signal(daemon, signal.SIGSTOP)
    try:
        yield
    finally:
        world.fleet.signal(daemon, signal.SIGCONT)


@asynccontextmanager
async def second_daemon(world: World) -> AsyncIterator[None]:
    """An additional daemon, which ends by SIGKILL."""
    async with in_background(world.fleet.keep(_EXTRA_PLACE)):
        yield


@asynccontextmanager
async def clock_jumped(world: World, seconds: int) -> AsyncIterator[None]:
    world.clock.jump(seconds)
    try:
        yield
    finally:
        world.clock.jump(-seconds)
