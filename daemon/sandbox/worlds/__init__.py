"""Worlds: small versions of the schemas that real applications have.

A world is the sandbox's plain schema with the changes of its file, whose first comment gives the reason;
`_BASES` names those that build on another world. The migrations are applied by the owner of the application's
tables, as on Supabase. The comment of the schema public records which world a database holds.
"""

from __future__ import annotations

from importlib.resources import files
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import psycopg

PLAIN: Final = "plain"
_FOLDER = files(__package__)
_BASES: Final = {"publication_owner": "owner", "policies": "owner", "policies_hidden": "policies"}
_MARK: Final = "The application of the sandbox, in the world "

WORLDS: Final = (
    PLAIN,
    *sorted(
        name.removesuffix(".sql")
        for name in (file.name for file in _FOLDER.iterdir())
        if name.endswith(".sql") and name != f"{PLAIN}.sql"
    ),
)


class OtherWorldError(Exception):
    """The database holds a world other than the requested one."""


def reason(world: str) -> str:
    """The reason for the world: the first comment of its file."""
    comment = takewhile(lambda line: line.startswith("--"), _sql(world).decode().splitlines())
    return " ".join(line.removeprefix("--").strip() for line in comment)


def build(connection: psycopg.Connection[Any], world: str) -> None:
    """Create the application's tables, unless they exist, in a database that already has Supabase's part.

    Raises `OtherWorldError` naming the world if the database holds another.
    """
    held = held_by(connection)
    if held is not None:
        if held != world:
            raise OtherWorldError(held)
        return
    with connection.transaction():
        # Bytes are sent as they are, several statements at once.
        connection.execute((files("priorityd.daemon.sandbox") / "schema" / "application.sql").read_bytes())
        for name in _with_bases(world):
            connection.execute(_sql(name))
        connection.execute(f"comment on schema public is '{_MARK}{world}'".encode())


def held_by(connection: psycopg.Connection[Any]) -> str | None:
    """The world that the database holds, None if it has none yet."""
    row = connection.execute("select obj_description('public'::regnamespace, 'pg_namespace')").fetchone()
    comment = str(row[0] or "") if row else ""
    return comment.removeprefix(_MARK) if comment.startswith(_MARK) else None


def _with_bases(world: str) -> list[str]:
    base = _BASES.get(world)
    return [*(_with_bases(base) if base else ()), world]


def _sql(world: str) -> bytes:
    return (_FOLDER / f"{world}.sql").read_bytes()
