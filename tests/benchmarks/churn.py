"""Memberships that come and go, made right in batches as a daemon does it, and what the tables take then."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import psycopg

from tests.support.application import Application

BATCH: Final = 500
_MOST_BLOCKS: Final = 100
Connection = psycopg.Connection[Any]


def churn(app: Application, changes: int) -> None:
    """Repositories of the table `churned` join a workspace and leave it again, as often as needed."""
    workspace = app.workspace()
    blocks = min(_MOST_BLOCKS, 1 + value_of(app.connection, "select max(block) from churned"))
    done, turn = 0, 0
    while done < changes:
        for block in range(blocks):
            done += _turn(app, workspace, block, joins=turn % 2 == 0)
            if done >= changes:
                return
        turn += 1


def _turn(app: Application, workspace: UUID, block: int, *, joins: bool) -> int:
    query = "select repository_id from churned where block = %s"
    repositories = [row[0] for row in app.connection.execute(query, (block,))]
    if joins:
        app.add(workspace, *repositories)
    else:
        app.remove(workspace, *repositories)
    for first in range(0, len(repositories), BATCH):
        app.connection.execute(
            "select sync_workspace_priorities(%s::uuid[], 'event')", (repositories[first : first + BATCH],)
        )
    return len(repositories)


def sizes_of(connection: Connection) -> dict[str, int]:
    tables = ("tracked_repositories", "workspace_repositories")
    sizes = "select sum({}(name::regclass))::bigint from unnest(%s::text[]) name"
    return {
        "tables": value_of(connection, sizes.format("pg_table_size"), list(tables)),
        "indexes": value_of(connection, sizes.format("pg_indexes_size"), list(tables)),
    }


def value_of(connection: Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]
