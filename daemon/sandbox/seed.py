"""What a sandbox database has before the servers start: Supabase's part, the application's, and demo data."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import psycopg

from priorityd.daemon.sandbox.migrate import apply_migrations
from priorityd.daemon.sandbox.queries import query

if TYPE_CHECKING:
    from collections.abc import Callable


def prepare_database(url: str, *, with_demo_data: bool, step: Callable[[str], None]) -> None:
    """Make the database what a Supabase project with the application on it would be.

    All of it is idempotent, for a data directory that is kept. `step` is told what is being done.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        step("Roles and publication of Supabase")
        connection.execute(_schema("roles"))
        step("Tables of the application")
        connection.execute(_schema("application"))
        step("Migrations of priorityd")
        apply_migrations(connection)
        if with_demo_data:
            step("Demo data")
            connection.execute(query("demo_data"))


def _schema(name: str) -> bytes:
    # Bytes: several statements, sent as they are.
    return (files(__package__) / "schema" / f"{name}.sql").read_bytes()
