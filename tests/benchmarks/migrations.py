"""How long each migration takes on a large table, and how long it blocks others, with and without the
preparation.

While a file runs, three clients do what an application does, one statement after the other: read a tracked
row, write one, and add and remove a membership. The longest that any of them took is what a user would have
noticed. A fourth watches the locks, and measures how long an ACCESS EXCLUSIVE lock was held on
tracked_repositories or workspace_repositories.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from priorityd.daemon.migration_files import migration_files, migrations_dir
from priorityd.daemon.sandbox.postgres import embedded_postgres
from tests.support.database import schema_sql
from tests.support.psql import run_psql

TRACKED, MEMBERSHIPS = 1_000_000, 400_000
_WORKSPACE = UUID(int=1)
_PAUSE_SECONDS = 0.002
_READ = "select priority from tracked_repositories where id = %s"
_WRITE = "update tracked_repositories set last_sync_at = now() where id = %s"
_JOIN = "insert into workspace_repositories (workspace_id, repository_id) values (%s, %s)"
_LEAVE = "delete from workspace_repositories where workspace_id = %s and repository_id = %s"
_HELD = """
select exists (
    select from pg_locks
    where mode = 'AccessExclusiveLock' and granted and database = (
            select oid from pg_database where datname = current_database()
        )
        and relation in (%s::regclass::oid, %s::regclass::oid)
)
"""
_FILL = """
insert into workspaces (name) select 'workspace ' || n from generate_series(1, 2000) n;
insert into repositories (id) select gen_random_uuid() from generate_series(1, {tracked});
insert into tracked_repositories (repository_id, priority)
select id, (array['high', 'medium', 'medium', 'low'])[1 + n % 4]::repository_priority
from (select id, row_number() over () as n from repositories) r;
insert into workspace_repositories (workspace_id, repository_id)
select w.id, r.id
from (select id, row_number() over () as n from repositories limit {memberships}) r
join (select id, row_number() over () as n from workspaces) w on w.n = 1 + r.n % 2000;
vacuum analyze tracked_repositories;
vacuum analyze workspace_repositories
"""


def migrations(tracked: int = TRACKED, memberships: int = MEMBERSHIPS) -> dict[str, Any]:
    """Every file without the preparation; then the preparation, every file after it, and the undo."""
    undo = migrations_dir() / "rollback" / "uninstall.sql"
    preparations = sorted((migrations_dir() / "concurrently").glob("*.sql"))
    with _application(tracked, memberships) as url:
        alone = [_measure(url, file) for file in migration_files()]
    with _application(tracked, memberships) as url:
        prepared = [_measure(url, file, run_psql) for file in preparations]
        prepared += [_measure(url, file) for file in migration_files()]
        undone = [_call(url, "rollback_workspace_priorities()")]
        undone.append(_measure(url, undo))
    return {
        "tracked": tracked,
        "memberships": memberships,
        "alone": alone,
        "prepared": prepared,
        "rollback": undone,
    }


@contextmanager
def _application(tracked: int, memberships: int) -> Iterator[str]:
    with embedded_postgres() as postgres:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            for name in ("roles", "application"):
                connection.execute(schema_sql(name))
            for statement in _FILL.format(tracked=tracked, memberships=memberships).split(";"):
                connection.execute(statement.encode())
        yield postgres.url()


def _in_one_transaction(url: str, file: Path) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(file.read_bytes())


def _measure(
    url: str, file: Path, run: Callable[[str, Path], object] = _in_one_transaction
) -> dict[str, Any]:
    name = f"{file.parent.name}/{file.name}" if file.parent != migrations_dir() else file.name
    return {"file": name} | watched(url, lambda: run(url, file))


def _call(url: str, function: str) -> dict[str, Any]:
    def run() -> None:
        with psycopg.connect(url) as connection:
            connection.execute(f"select {function}".encode())

    return {"file": function} | watched(url, run)


def watched(url: str, work: Callable[[], object]) -> dict[str, Any]:
    """Do this while clients read and write; returns how long it took, and the longest wait of each client."""
    with ExitStack() as stack:
        read = stack.enter_context(_Client(url, _reader))
        write = stack.enter_context(_Client(url, _writer))
        join = stack.enter_context(_Client(url, _joiner))
        locks = stack.enter_context(_LockWatch(url))
        for client in (read, write, join, locks):
            client.begun.wait()
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
    return {
        "seconds": round(seconds, 2),
        "longest_read_ms": read.longest_ms,
        "longest_write_ms": write.longest_ms,
        "longest_membership_write_ms": join.longest_ms,
        "longest_access_exclusive_ms": locks.longest_ms,
    }


Connection = psycopg.Connection[Any]


class _Client:
    """Runs one statement after the other in a thread until the block ends, and records the longest."""

    def __init__(self, url: str, prepare: Callable[[Connection], Callable[[], None]]) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._step = prepare(self._connection)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._longest = 0.0
        self.begun = threading.Event()

    def __enter__(self) -> _Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    @property
    def longest_ms(self) -> float:
        return round(self._longest * 1000, 1)

    def _run(self) -> None:
        self._step()  # whatever is slow the first time only
        self.begun.set()
        while not self._stop.is_set():
            began = time.perf_counter()
            self._step()
            self._took(began)
            time.sleep(_PAUSE_SECONDS)

    def _took(self, began: float) -> None:
        self._longest = max(self._longest, time.perf_counter() - began)


class _LockWatch(_Client):
    """The same for how long a lock was seen continuously, including the time of looking."""

    def __init__(self, url: str) -> None:
        super().__init__(url, self._watch)
        self._held_since: float | None = None

    def _watch(self, connection: Connection) -> Callable[[], None]:
        tables = ("tracked_repositories", "workspace_repositories")

        def look() -> None:
            row = connection.execute(_HELD, tables).fetchone()
            now = time.perf_counter()
            if row != (True,):
                self._held_since = None
            elif self._held_since is None:
                self._held_since = now

        return look

    def _took(self, _: float) -> None:
        if self._held_since is not None:
            super()._took(self._held_since)


def _reader(connection: Connection) -> Callable[[], None]:
    ids = _some(connection, "select id from tracked_repositories order by id limit 10000")
    return lambda: connection.execute(_READ, next(ids)).close()


def _writer(connection: Connection) -> Callable[[], None]:
    ids = _some(connection, "select id from tracked_repositories order by id desc limit 10000")
    return lambda: connection.execute(_WRITE, next(ids)).close()


def _joiner(connection: Connection) -> Callable[[], None]:
    connection.execute("insert into workspaces (id) values (%s) on conflict do nothing", (_WORKSPACE,))
    ids = _some(connection, "select id from repositories order by id limit 10000")

    def join_and_leave() -> None:
        key = (_WORKSPACE, *next(ids))
        connection.execute(_JOIN, key)
        connection.execute(_LEAVE, key)

    return join_and_leave


def _some(connection: Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Rows of the query, repeatedly; effectively at random, since they are in the order of random keys."""
    return cycle(connection.execute(query.encode()).fetchall())
