"""What the application does to its own tables, and the resulting priorities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg

from priorityd.daemon.sandbox.worlds import PLAIN
from tests.support.habits import Habits, habits

Row = tuple[str | None, bool | None, int | None]


@dataclass
class Application:
    """The application's own writes to its database."""

    connection: psycopg.Connection[Any]
    world: str = PLAIN
    habits: Habits = field(init=False)

    def __post_init__(self) -> None:
        self.habits = habits(self.world)

    def workspace(self) -> UUID:
        """A new workspace; in some worlds its id is not a uuid."""
        row = self.connection.execute("insert into workspaces default values returning id").fetchone()
        assert row is not None
        workspace_id: UUID = row[0]
        return workspace_id

    def repository(self, *, tracked: bool = True) -> UUID:
        repository_id = self._insert("repositories")
        if tracked:
            self.track(repository_id)
        return repository_id

    def repositories(self, number: int) -> list[UUID]:
        """Many tracked repositories at once."""
        ids = [uuid4() for _ in range(number)]
        for table, column in (("repositories", "id"), ("tracked_repositories", "repository_id")):
            self.connection.execute(f"insert into {table} ({column}) select unnest(%s::uuid[])", (ids,))
        return ids

    def track(self, repository_id: UUID | None, **columns: object) -> UUID:
        return self._insert("tracked_repositories", repository_id=repository_id, **columns)

    def add(self, workspace_id: UUID, *repository_ids: UUID) -> None:
        self.connection.execute(
            "insert into workspace_repositories (workspace_id, repository_id) select %s, unnest(%s::uuid[])",
            (workspace_id, list(repository_ids)),
        )

    def remove(self, workspace_id: UUID, *repository_ids: UUID) -> None:
        self.connection.execute(self.habits.remove.encode(), (workspace_id, list(repository_ids)))

    def delete_workspace(self, workspace_id: UUID) -> None:
        self.connection.execute(self.habits.delete_workspace.encode(), (workspace_id,))

    def row(self, repository_id: UUID) -> Row:
        """Priority, flag and count of a tracked repository."""
        row = self.connection.execute(
            "select priority::text, is_workspace_repo, workspace_count from tracked_repositories"
            " where repository_id = %s",
            (repository_id,),
        ).fetchone()
        assert row is not None
        return row[0], row[1], row[2]

    def wrong_rows(self) -> int:
        """Tracked rows that disagree with membership, judged independently of the project's functions.

        Rows that the world's application does not allow to change are left out.
        """
        row = self.connection.execute(self.habits.count_wrong.encode()).fetchone()
        assert row is not None
        wrong: int = row[0]
        return wrong

    def _insert(self, table: str, **columns: object) -> UUID:
        names = ", ".join(["id", *columns])
        values = [uuid4(), *columns.values()]
        marks = ", ".join(["%s"] * len(values))
        self.connection.execute(f"insert into {table} ({names}) values ({marks})", values)
        return values[0]  # type: ignore[return-value]
