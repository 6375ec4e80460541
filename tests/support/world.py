"""What the SQL tests do with a database: the application's writes, the project's functions, and queries."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psycopg
from psycopg import sql

from tests.support.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tests.support.database import Database

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """The columns of a tracked row that concern its priority."""

    priority: str | None
    is_workspace_repo: bool | None
    workspace_count: int | None
    manual_priority: str | None = None


class World:
    """One session on one database."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def execute(self, query: str, *args: object) -> psycopg.Cursor[Any]:
        return self.connection.execute(query.encode(), args or None)

    def value(self, query: str, *args: object) -> Any:
        row = self.execute(query, *args).fetchone()
        assert row is not None
        return row[0]

    @property
    def pid(self) -> int:
        return self.connection.info.backend_pid

    # The application's writes.

    def repository(self) -> UUID:
        return self.value("insert into repositories default values returning id")

    def workspace(self) -> UUID:
        return self.value("insert into workspaces default values returning id")

    def track(self, repository: UUID | None, **columns: object) -> UUID:
        names = ["repository_id", *columns]
        query = sql.SQL("insert into tracked_repositories ({}) values ({}) returning id").format(
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(", ").join(sql.Placeholder() * len(names))
        )
        row = self.connection.execute(query, [repository, *columns.values()]).fetchone()
        assert row is not None
        return row[0]

    def tracked(self, **columns: object) -> UUID:
        """A new repository with a tracked row."""
        repository = self.repository()
        self.track(repository, **columns)
        return repository

    def add(self, repository: UUID, workspace: UUID | None = None) -> UUID:
        workspace = workspace or self.workspace()
        self.execute(
            "insert into workspace_repositories (workspace_id, repository_id) values (%s, %s)",
            workspace,
            repository,
        )
        return workspace

    def remove(self, repository: UUID, workspace: UUID) -> None:
        self.execute(
            "delete from workspace_repositories where workspace_id = %s and repository_id = %s",
            workspace,
            repository,
        )

    # The project's functions.

    def call(self, function: str, *args: object, **named: object) -> Any:
        parts: list[sql.Composable] = [sql.Placeholder()] * len(args)
        parts += [sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder()) for name in named]
        name = sql.Identifier(*function.split(".")) if "." in function else sql.Identifier("public", function)
        query = sql.SQL("select {}({})").format(name, sql.SQL(", ").join(parts))
        row = self.connection.execute(query, [*args, *named.values()]).fetchone()
        assert row is not None
        return row[0]

    def sync(self, *repositories: UUID | None, **named: object) -> Json:
        return self.call("sync_workspace_priorities", list(repositories), **named)

    def sweep(self, **named: object) -> Json:
        return self.call("sweep_workspace_priorities", **named)

    def resync(self, limit: int = 1000, **named: object) -> list[Json]:
        """The pages of a full resync."""
        pages = [self.call("resync_workspace_priorities_page", None, limit, **named)]
        while pages[-1]["next_after"] is not None:
            pages.append(
                self.call("resync_workspace_priorities_page", pages[-1]["next_after"], limit, **named)
            )
        return pages

    def pin(self, repository: UUID, priority: str | None) -> Json:
        return self.call("set_manual_priority", repository, priority)

    # Looking.

    def row(self, repository: UUID) -> Row:
        found = self.execute(
            """select priority::text, is_workspace_repo, workspace_count, manual_priority::text
               from tracked_repositories where repository_id = %s""",
            repository,
        ).fetchone()
        assert found is not None
        return Row(*found)

    def audit(self, repository: UUID | None = None) -> list[tuple[Any, ...]]:
        """(old priority, new priority, old flag, flag, count, trigger) of every change, the oldest first."""
        return self.execute(
            """select old_priority, new_priority, old_is_workspace_repo, is_workspace_repo, workspace_count,
                   trigger
               from repository_priority_changes where %s::uuid is null or repository_id = %s order by id""",
            repository,
            repository,
        ).fetchall()

    def everything(self) -> list[tuple[Any, ...]]:
        """All tracked rows exactly, with their row versions, and the length of the trail."""
        rows = self.execute(
            "select tr.xmin::text, tr.ctid::text, to_jsonb(tr) from tracked_repositories tr order by id"
        )
        return [*rows.fetchall(), self.execute("select count(*) from repository_priority_changes").fetchone()]

    def wait_until_blocked(self, pid: int) -> None:
        """Wait until the session with this backend waits for a lock held by another one."""
        self.wait_for("select cardinality(pg_blocking_pids(%s)) > 0", pid)

    def wait_for(self, query: str, *args: object) -> None:
        """Wait in the database until the query is true; fail when it takes too long."""
        deadline = self.value("select clock_timestamp() + make_interval(secs => %s)", PATIENCE_SECONDS)
        while not self.value(query, *args):
            assert self.value("select clock_timestamp() < %s", deadline), f"still not true: {query} {args}"


class Background(Generic[T]):
    """A call in its own thread; its result or error is kept for later."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._result: list[T] = []
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self._result.append(call())
        except BaseException as error:  # noqa: BLE001 - handed to the caller of result()
            self._error.append(error)

    def result(self) -> T:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), f"the call did not end within {PATIENCE_SECONDS} s"
        if self._error:
            raise self._error[0]
        return self._result[0]


def session(database: Database, *, autocommit: bool = True) -> World:
    """Open another session on the same database."""
    return World(database.connect(autocommit=autocommit))


def sync_like_the_daemon(world: World, *repositories: UUID) -> None:
    """A call, and another one for what it reports as locked."""
    waiting = list(repositories)
    while waiting:
        waiting = world.sync(*waiting, p_trigger="event")["locked"]
