"""How each cost grows with the number of tracked rows: a table, and the exponent of each line.

For each number of rows the application is filled once (three memberships for each ten rows, 50,000
workspaces), and copied: to be installed into with and without the step for large tables, while clients read
and write; to be swept, resynced and looked at through the REST stand-in; to be watched by a daemon; and to be
changed a million times, with and without a forgotten snapshot.

An exponent of 1 means that ten times the rows cost ten times as much; 0, that they make no difference.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from priorityd.core.library.workspace_priority_sync import WorkspacePrioritySync
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.migration_files import migration_files, migrations_dir
from priorityd.daemon.repair.sweeper import SWEEP_LIMIT
from priorityd.daemon.sandbox.postgres import EmbeddedPostgres, embedded_postgres
from tests.benchmarks.churn import Connection, churn, sizes_of, value_of
from tests.benchmarks.figures import Json, at_most
from tests.benchmarks.large import Sizes, fill_application, make_missed, make_wrong, tidy
from tests.benchmarks.migrations import watched
from tests.benchmarks.process_costs import highest_mib, resident_mib
from tests.benchmarks.scale_table import Measures, as_table, print_table, say
from tests.support.application import Application
from tests.support.daemon_process import eventually, start_daemon
from tests.support.database import schema_sql
from tests.support.psql import run_psql
from tests.support.servers import start_servers

ROWS: Final = (100_000, 1_000_000)
WORKSPACES: Final = 50_000
MISSED, LIVE_CHANGES, CASCADE = 100, 20, 10_000
CHANGES: Final = 1_000_000
_BLOCK: Final = 5000
_REPEATS: Final = 5
_LONGEST_SECONDS: Final = 1800
_BYTES_A_ROW: Final = 4000
"""Of disk, with the copies that are there at once and the WAL."""
_SECONDS: Final = 400
_SECONDS_A_ROW: Final = 0.0001
_MOST_EXPONENT: Final = 1.1
_LEAST_SECONDS: Final = 0.05
"""Where the largest number of rows takes less, an exponent says more about the machine than about us."""


async def scale(rows: Sequence[int] = ROWS) -> Json:
    """See the module's text."""
    rows = sorted(rows)
    _announce(rows)
    columns = {number: await _measure(number) for number in rows}
    table = as_table(columns)
    print_table(table, rows)
    return {
        "rows": rows,
        "workspaces": WORKSPACES,
        "measures": table,
        "bars": {
            name: at_most(line["exponent"], _MOST_EXPONENT)
            for name, line in table.items()
            if name.endswith("seconds") and line["exponent"] and line[str(rows[-1])] >= _LEAST_SECONDS
        },
    }


def _announce(rows: Sequence[int]) -> None:
    needed = max(rows) * _BYTES_A_ROW / 1e9
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    minutes = (len(rows) * _SECONDS + sum(rows) * _SECONDS_A_ROW) / 60
    say(f"{needed:.1f} GB of disk at most, {free:.0f} GB free; some {minutes:.0f} minutes on two idle cores")
    if needed > free:
        raise SystemExit("not enough disk")


async def _measure(rows: int) -> Measures:
    sizes = Sizes(rows, rows * 3 // 10, WORKSPACES)
    with embedded_postgres() as postgres:
        server = _Databases(postgres)
        with server.timed("fill"), server.new("bare") as connection:
            for name in ("roles", "application"):
                connection.execute(schema_sql(name))
            fill_application(connection, sizes)
            connection.execute("vacuum analyze")
        found = _Measures(server)
        with server.timed("installing"):
            found.installed("alone", _files_alone)
            server.drop("alone")
            found.installed("prepared", _files_prepared)
            server.drop("bare")
        with server.copied("prepared", "looked_at") as app, server.timed("looking"):
            await _look(found, app, server.url("looked_at"), rows)
        with server.copied("prepared", "lived_in") as app, server.timed("living"):
            await _live(found, app, server.url("lived_in"))
        for held in (False, True):
            name = "held" if held else "calm"
            with server.copied("prepared", name) as app, server.timed(f"changing, {name}"):
                _change(found, app, server.url(name), held=held)
        return found.values


class _Databases:
    """Databases on one server; one that is copied must have nobody connected to it."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self.admin: Connection = psycopg.connect(postgres.url(), autocommit=True)

    def url(self, name: str) -> str:
        return self._postgres.url(name)

    @contextmanager
    def new(self, name: str, template: str = "template1") -> Iterator[Connection]:
        self.admin.execute(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            yield connection

    @contextmanager
    def copied(self, template: str, name: str) -> Iterator[Application]:
        """A copy for the length of the block."""
        with self.new(name, template) as connection:
            yield Application(connection)
        self.drop(name)

    def drop(self, name: str) -> None:
        self.admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        self.admin.execute("checkpoint")

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        say(f"{what}: {time.monotonic() - began:.0f} s")


@dataclass
class _Measures:
    """What was found for one number of rows, by name; each name ends with its unit."""

    server: _Databases
    values: Measures = field(default_factory=dict)

    def installed(self, name: str, install: Callable[[str], None]) -> None:
        """The migrations into a copy of the bare application, while clients read and write."""
        with self.server.new(name, "bare"):
            pass
        with self.wal(f"installing {name}, WAL MB"):
            seen = watched(self.server.url(name), lambda: install(self.server.url(name)))
        self.values[f"installing {name}, seconds"] = seen["seconds"]
        for who, waited in (
            ("reader", "longest_read_ms"),
            ("writer", "longest_write_ms"),
            ("member", "longest_membership_write_ms"),
        ):
            self.values[f"installing {name}, longest wait of a {who}, ms"] = seen[waited]

    async def timed(self, name: str, work: Callable[[], Any], repeats: int = _REPEATS) -> None:
        """The middle of the repeats, of which the first is not counted."""
        took = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            await work()
            took.append(time.perf_counter() - began)
        self.values[f"{name}, seconds"] = median(took[1:])

    @contextmanager
    def wal(self, name: str) -> Iterator[None]:
        before = value_of(self.server.admin, "select pg_current_wal_insert_lsn()")
        yield
        written = value_of(self.server.admin, "select pg_current_wal_insert_lsn() - %s::pg_lsn", before)
        self.values[name] = float(written) / 1e6


def _files_alone(url: str) -> None:
    for file in migration_files():
        with psycopg.connect(url) as connection:
            connection.execute(file.read_bytes())


def _files_prepared(url: str) -> None:
    for file in sorted((migrations_dir() / "concurrently").glob("*.sql")):
        run_psql(url, file)
    _files_alone(url)


# Calls.


async def _look(found: _Measures, app: Application, url: str, rows: int) -> None:
    """Sweep, resync, snapshot and the sync of one repository, through REST."""
    async with start_servers(url) as server, open_store(server.url, server.service_role_key) as store:
        await _resync(store)  # what the installation leaves to the first one
        tidy(app)
        repository = value_of(app.connection, "select repository_id from workspace_repositories limit 1")

        async def sweep() -> None:
            await store.sweep("sweep", SWEEP_LIMIT)

        async def sync() -> None:
            await store.sync([repository], "event")

        await found.timed("sweep, nothing wrong", sweep)
        await found.timed("sync of one", sync)
        await found.timed("snapshot", store.snapshot)
        await found.timed("resync, nothing wrong", lambda: _resync(store), 3)
        make_missed(app, MISSED)
        await _once(found, f"sweep, {MISSED} missed", sweep)
        make_wrong(app, rows // 100)
        with found.wal("resync, 1 % wrong, WAL MB"):
            await _once(found, "resync, 1 % wrong", lambda: _resync(store))
        assert app.wrong_rows() == 0


async def _once(found: _Measures, name: str, work: Callable[[], Any]) -> None:
    began = time.perf_counter()
    await work()
    found.values[f"{name}, seconds"] = time.perf_counter() - began


async def _resync(store: Store) -> None:
    result = await WorkspacePrioritySync(store, time.monotonic).sync_all_priorities("resync")
    assert result.errors == []


# A daemon.


async def _live(found: _Measures, app: Application, url: str) -> None:
    """From the commit of a change until the row is right; then a large workspace that comes and goes."""
    async with _daemon(url) as pid:
        outside = _outside(app, CASCADE)
        workspace = app.workspace()
        took = []
        for repository in outside[:LIVE_CHANGES]:
            app.add(workspace, repository)
            took.append(await _until(app, [repository], high=True))
        found.values["one live change, seconds"] = median(took)
        whole = app.workspace()
        app.add(whole, *outside[LIVE_CHANGES:])
        found.values["10,000 that join, seconds"] = await _until(app, outside, high=True)
        app.delete_workspace(workspace)
        with found.wal("a cascade of 10,000, WAL MB"):
            app.delete_workspace(whole)
            found.values["a cascade of 10,000, seconds"] = await _until(app, outside, high=False)
        found.values["daemon's memory, MiB"] = resident_mib(pid)
        found.values["daemon's memory at most, MiB"] = highest_mib(pid)


@asynccontextmanager
async def _daemon(url: str) -> AsyncIterator[int]:
    async with start_servers(url) as server:
        settings: dict[str, Any] = {
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
        }
        async with start_daemon(ready=False, **settings) as daemon:
            await eventually(lambda: daemon.answers("/readyz", 200), _LONGEST_SECONDS)
            await eventually(daemon.settled, _LONGEST_SECONDS)
            yield daemon.process.pid


def _outside(app: Application, number: int) -> list[UUID]:
    query = """
        select repository_id from tracked_repositories
        where not is_workspace_repo order by hashtext(id::text) limit %s"""
    return [row[0] for row in app.connection.execute(query, (number,))]


async def _until(app: Application, repositories: Sequence[UUID], *, high: bool) -> float:
    began = time.perf_counter()
    query = """
        select count(*) from tracked_repositories
        where repository_id = any(%s) and is_workspace_repo is distinct from %s"""
    await eventually(lambda: value_of(app.connection, query, list(repositories), high) == 0, _LONGEST_SECONDS)
    return time.perf_counter() - began


# Bloat.


def _change(found: _Measures, app: Application, url: str, *, held: bool) -> None:
    """Memberships come and go, made right in batches as a daemon does it; then the sizes."""
    name = "a million times, a snapshot held" if held else "a million times"
    connection = app.connection
    connection.execute(
        """create table churned as
           select repository_id, (row_number() over () - 1) / %s as block
           from tracked_repositories where not is_workspace_repo""",
        (_BLOCK,),
    )
    connection.execute("create index on churned (block)")
    before = sizes_of(connection)
    with psycopg.connect(url) as forgotten:
        if held:
            forgotten.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            forgotten.execute("select pg_current_snapshot()")
        began = time.perf_counter()
        with found.wal(f"changed {name}, WAL MB"):
            churn(app, CHANGES)
        found.values[f"changed {name}, seconds"] = time.perf_counter() - began
        after = sizes_of(connection)
        for what in before:
            found.values[f"{what} after being changed {name}, times as large"] = after[what] / before[what]
        began = time.perf_counter()
        connection.execute("select sweep_workspace_priorities()")
        found.values[f"sweep after being changed {name}, seconds"] = time.perf_counter() - began
