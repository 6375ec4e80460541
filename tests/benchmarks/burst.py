"""10,000 memberships in one transaction, and their removal, from the commit until every priority is right.

The floor is the time at which the last event has arrived at a client that does nothing with it, plus one
hand-written statement for all of them. The bare client and the daemon take turns, one listener at a time; a
listener that reads and updates for each event runs once.

Each transaction is committed when the stream has caught up. Otherwise it would wait behind the updates that
answered the last one: Realtime reads those too, and rests 150 to 200 ms after each transaction that nobody
subscribed to, so 10,000 updates in 20 transactions keep it busy for four seconds.

All of it shares two cores, so the daemon's updates delay the events that are still to come, and the floor's
don't. The ratio differs from run to run by a third.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from subprocess import DEVNULL
from typing import Any, LiteralString
from uuid import UUID

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.benchmarks.database import application
from tests.benchmarks.figures import Json, at_least, at_most, ratios, spread, timed
from tests.benchmarks.large import BY_HAND, tidy
from tests.benchmarks.original import REQUESTS
from tests.support.application import Application
from tests.support.daemon_process import PRIORITYD, Daemon, environment, eventually, free_port, http_client
from tests.support.plans import UNMETERED
from tests.support.servers import start_servers
from tests.support.stack import NO_TIMER

MEMBERSHIPS, TRACKED = 10_000, 20_000
ROUNDS = 5
KINDS = ("adds", "removes")
_LONGEST_SECONDS = 900
_LAST_RECORD = "select last_value - (not is_called)::integer from repository_priority_changes_id_seq"
_CAUGHT_UP = "select coalesce(bool_and(confirmed_flush_lsn >= %s::pg_lsn), true) from pg_replication_slots"

Settings = dict[str, Any]
Seconds = dict[str, list[float]]
Line = Callable[[], Awaitable[str]]


async def burst(memberships: int = MEMBERSHIPS, tracked: int = TRACKED, rounds: int = ROUNDS) -> Json:
    """See the module's docstring."""
    with application() as (url, app):
        repositories = app.repositories(tracked)
        changes = _Changes(app, repositories[:memberships])
        app.connection.execute(REQUESTS.encode())
        tidy(app)
        async with start_servers(url, settings=UNMETERED) as server:
            settings: dict[str, Any] = {
                "SUPABASE_URL": server.url,
                "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
            }
            measured = await _compare(changes, settings, rounds)
            per_event = await _per_event(changes, settings)
    return {
        "memberships": memberships,
        "tracked": tracked,
        **{kind: _summary(measured, per_event, kind) for kind in KINDS},
        "bars": {
            f"{kind}_{name}": bar
            for kind in KINDS
            for name, bar in _bars(measured, per_event[kind], kind).items()
        },
    }


class _Changes:
    """The two transactions."""

    def __init__(self, app: Application, repositories: Sequence[UUID]) -> None:
        self.app = app
        self.number = len(repositories)
        workspace = app.workspace()
        self.kinds: dict[str, Callable[[], None]] = {
            "adds": lambda: app.add(workspace, *repositories),
            "removes": lambda: app.remove(workspace, *repositories),
        }

    async def begin(self, kind: str) -> float:
        """Commit this when the stream has caught up; returns the time of that."""
        written = self._one("select pg_current_wal_lsn()")
        await eventually(lambda: self._one(_CAUGHT_UP, written), _LONGEST_SECONDS)
        self.kinds[kind]()
        return time.monotonic()

    async def seconds_until_right(self, kind: str) -> float:
        """From the commit until no row is wrong. The number of the last record shows cheaply when to look."""
        before = self._last_record()
        began = await self.begin(kind)
        await eventually(lambda: self._last_record() >= before + self.number, _LONGEST_SECONDS)
        await eventually(lambda: self.app.wrong_rows() == 0)
        return time.monotonic() - began

    async def seconds_of_per_event(self, kind: str) -> float:
        """The same for a listener that keeps no record: looking once a second takes little of its time."""
        began = await self.begin(kind)
        while wrong := self.app.wrong_rows():
            assert time.monotonic() - began < _LONGEST_SECONDS, f"{wrong} rows are still wrong"
            await anyio.sleep(1)
        return time.monotonic() - began

    def _last_record(self) -> int:
        return int(self._one(_LAST_RECORD))

    def _one(self, query: LiteralString, *values: object) -> Any:
        row = self.app.connection.execute(query, values).fetchone()
        assert row is not None
        return row[0]


async def _compare(changes: _Changes, settings: Settings, rounds: int) -> dict[str, Seconds]:
    seconds: dict[str, Seconds] = {
        name: {kind: [] for kind in KINDS} for name in ("arrived", "by_hand", "ours")
    }
    for _ in range(rounds):
        async with _listener("bare_client", settings, str(changes.number)) as line:
            for kind in KINDS:
                began = await changes.begin(kind)
                seconds["arrived"][kind].append(float(await line()) - began)
                seconds["by_hand"][kind].append(timed(lambda: changes.app.connection.execute(BY_HAND)))
                tidy(changes.app)
        async with _daemon(settings):
            for kind in KINDS:
                seconds["ours"][kind].append(await changes.seconds_until_right(kind))
                tidy(changes.app)
    return seconds


async def _per_event(changes: _Changes, settings: Settings) -> dict[str, float]:
    async with _listener("per_event", settings):
        return {kind: await changes.seconds_of_per_event(kind) for kind in KINDS}


@asynccontextmanager
async def _daemon(settings: Settings) -> AsyncIterator[None]:
    """The daemon as installed, including its log lines, which nobody reads here: the stand-in is busy."""
    port = free_port()
    env = environment(PRIORITYD_HTTP_PORT=port, **settings, **NO_TIMER)
    async with (
        await anyio.open_process([*PRIORITYD, "run"], env=env, stderr=DEVNULL) as process,
        http_client() as client,
    ):
        daemon = Daemon(process, port, client)
        await eventually(lambda: daemon.answers("/readyz", 200), 30)
        await eventually(daemon.settled, 30)
        yield
        await daemon.stop()


@asynccontextmanager
async def _listener(module: str, settings: Settings, *arguments: str) -> AsyncIterator[Line]:
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    async with await anyio.open_process(command, env=environment(**settings), stderr=None) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        lines = BufferedByteReceiveStream(process.stdout)

        async def line() -> str:
            return (await lines.receive_until(b"\n", 1000)).decode()

        while await line() != "live":
            pass
        yield line
        await process.stdin.aclose()
        await process.wait()


def _floors(measured: dict[str, Seconds], kind: str) -> list[float]:
    return [sum(parts) for parts in zip(measured["arrived"][kind], measured["by_hand"][kind], strict=True)]


def _summary(measured: dict[str, Seconds], per_event: dict[str, float], kind: str) -> Json:
    return {
        "ratio": spread(ratios(measured["ours"][kind], _floors(measured, kind))),
        "last_event_seconds": spread(measured["arrived"][kind]),
        "by_hand_seconds": spread(measured["by_hand"][kind]),
        "daemon_seconds": spread(measured["ours"][kind]),
        "per_event_seconds": round(per_event[kind], 1),
    }


def _bars(measured: dict[str, Seconds], per_event: float, kind: str) -> Json:
    summary = spread(ratios(measured["ours"][kind], _floors(measured, kind)))
    return {
        "ratio": at_most(summary["median"], 1.6),
        "times_faster_than_per_event": at_least(per_event / spread(measured["ours"][kind])["median"], 20),
    }
