"""Applies the project's own migrations, unchanged: the same files that a Supabase project gets.

Production uses `supabase db push` or psql; this is for the sandbox and the tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

_PACKAGE = Path(__file__).resolve().parent.parent


def migrations_dir() -> Path:
    """Where the SQL files are.

    In an installed wheel they travel inside the package; in the source tree they lie beside it.

    Raises:
        FileNotFoundError: They are in neither place.
    """
    for directory in (_PACKAGE / "migrations", _PACKAGE.parent / "migrations"):
        if any(directory.glob("*.sql")):
            return directory
    raise FileNotFoundError(f"no migrations in {_PACKAGE} or beside it: the installation is incomplete")


def migration_files() -> list[Path]:
    """The migrations in the order of application."""
    return sorted(migrations_dir().glob("*.sql"))


def apply_migrations(connection: psycopg.Connection[Any]) -> list[str]:
    """Apply all migrations, each in a transaction of its own, and return their file names.

    Applying again is harmless, so no one keeps book of what is applied already.
    """
    files = migration_files()
    for file in files:
        _run(connection, file)
    return [file.name for file in files]


def rollback_migrations(connection: psycopg.Connection[Any]) -> list[str]:
    """Undo all migrations, the newest first, and return their file names."""
    files = [file.parent / "rollback" / file.name for file in reversed(migration_files())]
    for file in files:
        _run(connection, file)
    return [file.name for file in files]


def _run(connection: psycopg.Connection[Any], file: Path) -> None:
    with connection.transaction():
        # Bytes without parameters: sent as they are, several statements at once, and % means nothing.
        connection.execute(file.read_bytes())
