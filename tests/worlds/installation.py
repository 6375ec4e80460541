"""The flows about the migrations themselves: applied to existing rows, applied twice, and undone."""

from __future__ import annotations

from typing import Any

import psycopg

from priorityd.daemon.sandbox.migrate import apply_migrations, as_owner, undo_migrations
from priorityd.daemon.sandbox.worlds import build
from tests.support.application import Application
from tests.support.database import Database, schema_sql
from tests.support.schemas import FINGERPRINT
from tests.worlds.flows import RefusedError


def install_twice(database: Database) -> None:
    """Applied to wrong rows, some of which can't be repaired. Applying it again changes nothing."""
    connection, app = _prepared(database)
    held, found_high, _ = _rows(app)
    _install(connection)
    assert app.row(held) == ("high", True, 1), app.row(held)
    assert app.row(found_high)[0] == "high", app.row(found_high)
    once = _fingerprint(connection)
    _install(connection)
    assert _fingerprint(connection) == once, "the schema is another after the second time"


def uninstall(database: Database) -> None:
    """The schema is as it was before, and priorities are those outside workspaces."""
    connection, app = _prepared(database)
    before = _without_ours(_fingerprint(connection))
    _install(connection)
    held, found_high, other = _rows(app)
    connection.execute("select sweep_workspace_priorities()")
    assert app.row(held)[0] == "high", app.row(held)
    with as_owner(connection):
        undo_migrations(connection)
    after = _without_ours(_fingerprint(connection))
    assert after == before, f"the schema differs: {[row for row in after if row not in before][:2]}"
    priorities = [_priority(connection, repository) for repository in (held, found_high, other)]
    assert priorities == ["medium", "high", "medium"], priorities


def _prepared(database: Database) -> tuple[psycopg.Connection[Any], Application]:
    connection = database.connect()
    connection.execute(schema_sql("roles"))
    build(connection, database.world)
    return connection, Application(connection, database.world)


def _rows(app: Application) -> tuple[Any, Any, Any]:
    """One in a workspace, one at high outside, one at medium, and those that can't be written."""
    workspace, held, found_high, other = (
        app.workspace(),
        app.repository(),
        *(app.repository(tracked=False) for _ in range(2)),
    )
    app.track(found_high, priority="high")
    app.track(other, priority="medium")
    app.add(workspace, held)
    for columns in app.habits.refusing:
        repository = app.repository(tracked=False)
        app.track(repository, **columns)
        app.add(workspace, repository)
    return held, found_high, other


def _install(connection: psycopg.Connection[Any]) -> None:
    """Raises `RefusedError` if our own message gives the reason; such messages have a hint."""
    try:
        with as_owner(connection):
            apply_migrations(connection)
    except psycopg.Error as error:
        if error.diag.message_hint:
            raise RefusedError(error.diag.message_primary) from error
        raise


def _fingerprint(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(FINGERPRINT.encode()).fetchall()


def _without_ours(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    # An operator's own definition of membership goes with the schema that it is in.
    return [row for row in rows if "priorityd" not in str(row)]


def _priority(connection: psycopg.Connection[Any], repository: Any) -> Any:
    row = connection.execute(
        "select priority::text from tracked_repositories where repository_id = %s", (repository,)
    ).fetchone()
    assert row is not None
    return row[0]
