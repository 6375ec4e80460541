"""Shared by all tests: a real PostgreSQL, and a database of its own for every test that asks for one.

Normally that is the embedded PostgreSQL 18. With `PRIORITYD_TEST_DATABASE_URL` (a superuser's URL of
a server that may be littered with databases and roles) the same tests run there.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from daemon.sandbox.migrate import apply_migrations
from daemon.sandbox.postgres import embedded_postgres
from tests import secrecy

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Database:
    """One database, and the connections that a test has opened to it."""

    url: str
    _connections: list[psycopg.Connection[Any]] = field(default_factory=list)

    def connect(self, role: str | None = None, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """Open a session as the superuser, or as one of the API roles; it is closed after the test."""
        connection = psycopg.connect(self.url, autocommit=True)
        self._connections.append(connection)
        if role is not None:
            connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        connection.autocommit = autocommit
        return connection

    def close(self) -> None:
        """Close what the test left open."""
        for connection in self._connections:
            connection.close()


@dataclass(frozen=True)
class Server:
    """A server that databases can be made on."""

    admin_url: str

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return urlsplit(self.admin_url)._replace(path=f"/{database}").geturl()

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[Database]:
        """A new database for the length of the block."""
        name = f"priorityd_test_{uuid.uuid4().hex}"
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            admin.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
            database = Database(self.url(name))
            try:
                yield database
            finally:
                database.close()
                _wait_for_slots(admin, name)
                admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _wait_for_slots(admin: psycopg.Connection[Any], database: str) -> None:
    """A temporary replication slot ends with its backend, a moment after its client has gone."""
    deadline = time.monotonic() + 10
    query = "select count(*) from pg_replication_slots where database = %s"
    while admin.execute(query, (database,)).fetchone() != (0,):
        assert time.monotonic() < deadline, f"a replication slot in {database} is still in use"
        time.sleep(0.01)


def schema_sql(name: str) -> bytes:
    """What a database has before the migrations: `roles` (Supabase's part) or `application`."""
    return (resources.files("daemon.sandbox") / "schema" / f"{name}.sql").read_bytes()


@pytest.fixture(scope="session", autouse=True)
def secrets_stay_secret() -> Iterator[None]:
    """Fail the run if a secret was seen anywhere, whatever became of the test that saw it."""
    yield
    assert not secrecy.LEAKS, secrecy.LEAKS


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The PostgreSQL server of this test run."""
    url = os.environ.get("PRIORITYD_TEST_DATABASE_URL")
    if url:
        yield Server(url)
        return
    with embedded_postgres() as postgres:
        yield Server(postgres.url())


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """The name of a database with Supabase's roles, the application's tables and the migrations in it."""
    with server.database() as database:
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute(schema_sql("roles"))
            connection.execute(schema_sql("application"))
            apply_migrations(connection)
        yield urlsplit(database.url).path.lstrip("/")


@pytest.fixture
def database(server: Server, template: str) -> Iterator[Database]:
    """A fresh database with the application and the migrations applied, empty of rows."""
    with server.database(template) as database:
        yield database


@pytest.fixture
def empty_database(server: Server) -> Iterator[Database]:
    """A fresh database with nothing in it; Supabase's roles may exist on its server."""
    with server.database() as database:
        yield database
