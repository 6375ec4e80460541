"""What the application does to its own tables, and what priorities come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg

Row = tuple[str | None, bool | None, int | None]

ALL_WRONG = """
select count(*) from tracked_repositories t
left join (
    select repository_id, count(distinct workspace_id)::integer as workspaces
    from workspace_repositories group by repository_id
) m using (repository_id)
where (t.priority::text, t.is_workspace_repo, t.workspace_count) is distinct from (
    case when m.workspaces > 0 then 'high' else coalesce(t.manual_priority::text, 'medium') end,
    coalesce(m.workspaces, 0) > 0,
    coalesce(m.workspaces, 0)
)
"""


@dataclass
class Application:
    """The application's own hands on its database."""

    connection: psycopg.Connection[Any]

    def workspace(self) -> UUID:
        return self._insert("workspaces")

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
        self.connection.execute(
            "delete from workspace_repositories where workspace_id = %s and repository_id = any (%s)",
            (workspace_id, list(repository_ids)),
        )

    def delete_workspace(self, workspace_id: UUID) -> None:
        self.connection.execute("delete from workspaces where id = %s", (workspace_id,))

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
        """Tracked rows that disagree with membership, judged independently of the project's functions."""
        row = self.connection.execute(ALL_WRONG).fetchone()
        assert row is not None
        wrong: int = row[0]
        return wrong

    def _insert(self, table: str, **columns: object) -> UUID:
        names = ", ".join(["id", *columns])
        values = [uuid4(), *columns.values()]
        marks = ", ".join(["%s"] * len(values))
        self.connection.execute(f"insert into {table} ({names}) values ({marks})", values)
        return values[0]  # type: ignore[return-value]
