"""Prepares a sandbox database: Supabase's part, the application's tables, the migrations, and demo data."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import psycopg

from priorityd.daemon.sandbox.migrate import apply_migrations, as_owner
from priorityd.daemon.sandbox.queries import query
from priorityd.daemon.sandbox.worlds import PLAIN, build, reason

if TYPE_CHECKING:
    from collections.abc import Callable


class InstallationRefusedError(Exception):
    """The migrations refuse the application's tables; the text is the database's message."""


def prepare_database(
    url: str, *, world: str = PLAIN, with_demo_data: bool, step: Callable[[str], None]
) -> None:
    """Set the database up like that of a Supabase project with the application on it.

    Everything is idempotent, because a data directory may be kept. `step` is called with a description of
    each step. Raises `InstallationRefusedError`, and `OtherWorldError` if the data is of another world.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        step("Supabase's roles and publication")
        connection.execute((files(__package__) / "schema" / "roles.sql").read_bytes())
        step("The application's tables" if world == PLAIN else f"World {world}: {reason(world)}")
        build(connection, world)
        step("priorityd's migrations")
        try:
            with as_owner(connection):
                apply_migrations(connection)
        except psycopg.Error as error:
            raise InstallationRefusedError(
                " – ".join(filter(None, (error.diag.message_primary or str(error), error.diag.message_hint)))
            ) from error
        if with_demo_data:
            step("Demo data")
            connection.execute(query("demo_data"))
