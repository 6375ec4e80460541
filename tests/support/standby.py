"""A PostgreSQL server that becomes a standby and is promoted again, as during a failover."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from priorityd.daemon.sandbox.postgres import EmbeddedPostgres, embedded_postgres
from priorityd.daemon.sandbox.seed import prepare_database
from tests.support.application import Application


class Pair:
    """A server that becomes a standby without a primary, and is promoted again."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.postgres = postgres

    def demote(self) -> None:
        self.postgres.stop()
        (self.postgres.data_dir / "standby.signal").touch()
        self.postgres.start()

    def promote(self) -> None:
        with psycopg.connect(self.postgres.url(), autocommit=True) as connection:
            connection.execute("select pg_promote()")

    def application(self) -> Application:
        return Application(psycopg.connect(self.postgres.url(), autocommit=True))


@contextmanager
def pair_of_servers() -> Iterator[Pair]:
    """A server with the application and the migrations, for the length of the block."""
    with embedded_postgres() as postgres:
        prepare_database(postgres.url(), with_demo_data=False, step=lambda _: None)
        yield Pair(postgres)
