"""Applies the migrations unchanged: the same files that a Supabase project gets.

Production uses `supabase db push --linked` or psql; this is for the sandbox and the tests.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg import sql

from priorityd.daemon.migration_files import migration_files, migrations_dir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg


def apply_migrations(connection: psycopg.Connection[Any]) -> list[str]:
    """Apply all migrations, each file in its own transaction, and return their file names.

    Applying again is harmless, so no history is kept.
    """
    files = migration_files()
    for file in files:
        run_file(connection, file)
    return [file.name for file in files]


@contextmanager
def as_owner(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Act as the owner of the application's tables, like someone who applies migrations to a project."""
    row = connection.execute(
        "select pg_get_userbyid(relowner) from pg_class where oid = 'public.tracked_repositories'::regclass"
    ).fetchone()
    assert row is not None  # noqa: S101 - regclass has raised an error otherwise
    connection.execute(sql.SQL("set role {}").format(sql.Identifier(row[0])))
    try:
        yield
    finally:
        connection.execute("reset role")


def undo_migrations(connection: psycopg.Connection[Any]) -> None:
    """Remove everything that the migrations have created."""
    run_file(connection, migrations_dir() / "rollback" / "uninstall.sql")


def run_file(connection: psycopg.Connection[Any], file: Path) -> None:
    """Run a file of SQL in one transaction."""
    with connection.transaction():
        # Bytes without parameters are sent as they are: several statements at once, and % has no meaning.
        connection.execute(file.read_bytes())
