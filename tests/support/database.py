"""Shared by all tests: a real PostgreSQL, and a database of its own for every test that asks for one.

By default that is the embedded PostgreSQL 18. With `PRIORITYD_TEST_DATABASE_URL` (a superuser's URL of
a server that may be littered with databases and roles) the same tests run there.

With `PRIORITYD_TEST_AS_SUPABASE=1` in addition they run as on a Supabase project: everything is set up by
`tests/sql/supabase.sql`, and applied and used as `postgres`, who owns the databases and must not be that
superuser.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from priorityd.daemon.sandbox.migrate import apply_migrations, as_owner
from priorityd.daemon.sandbox.postgres import embedded_postgres
from priorityd.daemon.sandbox.worlds import PLAIN, build
from tests.support import secrecy
from tests.support.patience import PATIENCE_SECONDS
from tests.support.repository import ROOT

AS_SUPABASE = os.environ.get("PRIORITYD_TEST_AS_SUPABASE") == "1"
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 8 * 1024**3
SUPABASE_SQL = ROOT / "tests" / "sql" / "supabase.sql"


@dataclass
class Database:
    """One database, and the connections that a test has opened to it."""

    url: str
    world: str = PLAIN
    _connections: list[psycopg.Connection[Any]] = field(default_factory=list)

    def connect(self, role: str | None = None, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """Open a session as the owner, or as one of the API roles; it is closed after the test."""
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
    """A server on which databases can be made."""

    admin_url: str
    owner: str | None = None
    """Who owns the databases and connects to them, without a password; None is the superuser of the URL."""
    empty: str = "template0"
    """The template of a database with nothing in it."""
    admin: psycopg.Connection[Any] | None = None
    """What databases are made through; None is a connection for each."""

    def url(self, database: str) -> str:
        """The URL of one of its databases, as its owner."""
        url = urlsplit(self.admin_url)._replace(path=f"/{database}")
        if self.owner:
            url = url._replace(netloc=f"{self.owner}@{url.netloc.rpartition('@')[2]}")
        return url.geturl()

    @contextmanager
    def database(self, template: str | None = None, world: str = PLAIN) -> Iterator[Database]:
        """A new database for the length of the block.

        Its files are copied, which takes half as long as writing all pages to the WAL.
        """
        name = f"priorityd_test_{uuid.uuid4().hex}"
        with self._connected() as admin:
            admin.execute(
                sql.SQL("create database {} template {} owner {} strategy file_copy").format(
                    sql.Identifier(name),
                    sql.Identifier(template or self.empty),
                    sql.Identifier(self.owner or admin.info.user),
                )
            )
            database = Database(self.url(name), world)
            try:
                yield database
            finally:
                database.close()
                _wait_for_slots(admin, name)
                admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        if self.admin is not None:
            yield self.admin
            return
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            yield admin

    @contextmanager
    def kept(self) -> Iterator[Server]:
        """The same with one connection for the length of the block: to connect takes some milliseconds."""
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            yield replace(self, admin=admin)


def _wait_for_slots(admin: psycopg.Connection[Any], database: str) -> None:
    """Wait for temporary replication slots to end, which takes a moment after their client has gone."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    query = "select count(*) from pg_replication_slots where database = %s"
    while admin.execute(query, (database,)).fetchone() != (0,):
        assert time.monotonic() < deadline, f"a replication slot in {database} is still in use"
        time.sleep(0.01)


def schema_sql(name: str) -> bytes:
    """What a database has before the migrations: `roles` (Supabase's part) or `application`."""
    if AS_SUPABASE and name == "roles":
        # A superuser has put the rest into every database; this belongs to postgres, as on Supabase.
        return b"create publication supabase_realtime"
    return (resources.files("priorityd.daemon.sandbox") / "schema" / f"{name}.sql").read_bytes()


@contextmanager
def superuser_beside(connection: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's session on the same database, for what the owner may not do when run as on Supabase."""
    user = urlsplit(os.environ["PRIORITYD_TEST_DATABASE_URL"]).username if AS_SUPABASE else None
    info = connection.info
    with psycopg.connect(
        info.dsn, user=user or info.user, password=info.password or None, autocommit=True
    ) as superuser:
        yield superuser


@contextmanager
def _as_supabase(server: Server) -> Iterator[Server]:
    """The server whose databases are like a Supabase project's before anything is applied to it."""
    with server.database() as project:
        with psycopg.connect(project.url, autocommit=True) as superuser:
            superuser.execute(SUPABASE_SQL.read_bytes())
            query = "select rolsuper from pg_roles where rolname = 'postgres'"
            assert superuser.execute(query).fetchone() == (False,), "postgres is a superuser on this server"
        yield replace(server, owner="postgres", empty=urlsplit(project.url).path.lstrip("/"))


@pytest.fixture(scope="session", autouse=True)
def secrets_stay_secret() -> Iterator[None]:
    """Fail the run if a secret was seen anywhere, whatever the result of the test that saw it."""
    yield
    assert not secrecy.LEAKS, secrecy.LEAKS


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The PostgreSQL server of this test run."""
    url = os.environ.get("PRIORITYD_TEST_DATABASE_URL")
    if AS_SUPABASE:
        assert url, "PRIORITYD_TEST_AS_SUPABASE needs the URL of a superuser who is not postgres"
        with Server(url).kept() as kept, _as_supabase(kept) as server:
            yield server
        return
    if url:
        with Server(url).kept() as server:
            yield server
        return
    with TemporaryDirectory(prefix="priorityd-", dir=_in_memory()) as directory:
        # PostgreSQL does not run as root, and its files are in it.
        Path(directory).chmod(0o755)
        with (
            embedded_postgres(Path(directory) / "data") as postgres,
            Server(postgres.url()).kept() as server,
        ):
            yield server


def _in_memory() -> str | None:
    """A large in-memory file system, if there is one: copying a database there takes a tenth of the time."""
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and disk_usage(_MEMORY).free >= _MEMORY_BYTES:
        return str(_MEMORY)
    return None


@contextmanager
def installed(server: Server, world: str) -> Iterator[str]:
    """The name of a database with Supabase's roles, the tables of a world and the migrations in it."""
    with server.database() as database:
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute(schema_sql("roles"))
            build(connection, world)
            with as_owner(connection):
                apply_migrations(connection)
        yield urlsplit(database.url).path.lstrip("/")


@pytest.fixture(scope="session")
def templates(server: Server) -> Iterator[Callable[[str], str]]:
    """The template of each world, made on demand."""
    made: dict[str, str] = {}
    with ExitStack() as stack:

        def template_of(world: str) -> str:
            if world not in made:
                made[world] = stack.enter_context(installed(server, world))
            return made[world]

        yield template_of


@pytest.fixture(scope="session")
def template(templates: Callable[[str], str]) -> str:
    """The name of a database with Supabase's roles, the application's tables and the migrations in it."""
    return templates(PLAIN)


def in_worlds(*worlds: str, more: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Run a test that uses `database`, or a fixture based on it, in each of these worlds.

    In those of `more` it runs when the marker `worlds` is asked for: each takes a template of its own.
    """
    rare = [pytest.param(world, marks=pytest.mark.worlds) for world in more]
    return pytest.mark.parametrize("database", [*worlds, *rare], indirect=True)


@pytest.fixture
def database(
    request: pytest.FixtureRequest, server: Server, templates: Callable[[str], str]
) -> Iterator[Database]:
    """A fresh database with the application and the migrations applied, empty of rows.

    The application is the plain one; `in_worlds` chooses others.
    """
    world = getattr(request, "param", PLAIN)
    with server.database(templates(world), world) as database:
        yield database


@pytest.fixture(scope="session")
def database_of_all(server: Server, template: str) -> Iterator[Database]:
    """The same, shared by tests that change nothing."""
    with server.database(template) as database:
        yield database


@pytest.fixture
def empty_database(server: Server) -> Iterator[Database]:
    """A fresh database with nothing of ours in it; Supabase's roles may exist on its server."""
    with server.database() as database:
        yield database
