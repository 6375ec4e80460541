"""Where priorityd's migrations are: the SQL files that a Supabase project gets."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent


def migrations_dir() -> Path:
    """Where the SQL files are.

    In an installed wheel they are inside the package; in the source tree beside it.

    Raises:
        FileNotFoundError: they are in neither place.
    """
    for directory in (_PACKAGE / "migrations", _PACKAGE.parent / "migrations"):
        if any(directory.glob("*.sql")):
            return directory
    raise FileNotFoundError(f"no migrations in {_PACKAGE} or beside it: the installation is incomplete")


def migration_files() -> list[Path]:
    """The migrations in the order of application."""
    return sorted(migrations_dir().glob("*.sql"))
