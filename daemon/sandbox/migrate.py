"""Applies the project's own migrations, unchanged: the same files that a Supabase project gets.

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
    """Apply all migrations, each in a transaction of its own, and return their file names.

    Applying again is harmless, so no history is kept.
    """
    files = migration_files()
    for file in files:
        run_file(connection, file)
    return [file.name for file in files]


@contextmanager
def as_owner(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Act as the owner of the application's tables, as when migrations are applied to a project."""
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
    """Take out everything that the migrations have brought."""
    run_file(connection, migrations_dir() / "rollback" / "uninstall.sql")


def run_file(connection: psycopg.Connection[Any], file: Path) -> None:
    """Run a file of SQL in one transaction."""
    with connection.transaction():
        # Bytes without parameters: sent as they are, several statements at once, and % means nothing.
        connection.execute(file.read_bytes())
