"""The database that a benchmark starts with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from priorityd.daemon.sandbox.migrate import apply_migrations
from priorityd.daemon.sandbox.postgres import EmbeddedPostgres, embedded_postgres
from tests.support.application import Application
from tests.support.database import schema_sql


@contextmanager
def application(*, commit_times: bool = False) -> Iterator[tuple[str, Application]]:
    """A fresh PostgreSQL with the application and the migrations; optionally it records commit times."""
    with embedded_postgres() as postgres:
        if commit_times:
            with psycopg.connect(postgres.url(), autocommit=True) as connection:
                connection.execute("alter system set track_commit_timestamp = on")
            postgres.stop()
            postgres.start()
        with application_of(postgres) as app:
            yield postgres.url(), app


@contextmanager
def application_of(postgres: EmbeddedPostgres) -> Iterator[Application]:
    """Install the application and the migrations on this server, which has neither yet."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        for name in ("roles", "application"):
            connection.execute(schema_sql(name))
        apply_migrations(connection)
        yield Application(connection)
