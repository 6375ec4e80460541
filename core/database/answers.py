"""What the SQL functions answer, and what the library returns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from math import isfinite
from uuid import UUID

from priorityd.core.failures import is_about_a_row
from priorityd.core.names import known_as, row_known_as
from priorityd.core.priorities import DEFAULT_PRIORITY, Priority, level


class Sound:
    """An answer with which one can compute: its times have a zone, and its numbers are finite.

    Raises `ValueError` for any other, which comes from something that is not our function.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # it is a dataclass where it is used
            value = getattr(self, each.name)
            if isinstance(value, datetime) and value.tzinfo is None:
                raise ValueError(f"{each.name} is a time without a zone")
            if isinstance(value, float) and not isfinite(value):
                raise ValueError(f"{each.name} is not finite")


@dataclass(frozen=True, slots=True)
class PriorityUpdate:
    """One tracked repository whose priority, flag, count or manual priority was changed.

    `id` is the tracked row's, `repository_id` the repository's (None until the application fills it in),
    `name` is `owner/name` where the application's tables have names; for a row without a repository it is
    what the row itself says. `old_priority` may be a value of the application's own that is not a priority
    here; so may `new_priority` where the application puts such values into a `manual_priority` of its own.
    """

    id: UUID
    repository_id: UUID | None
    old_priority: str | None
    new_priority: str
    is_workspace_repo: bool
    workspace_count: int
    old_workspace_count: int
    name: str | None = None

    @property
    def shown_as(self) -> str:
        """The row's name for people."""
        return _shown_as(self)


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A tracked row that a trigger, check or constraint of the application did not let change.

    `id` and `name` as for `PriorityUpdate`; `sqlstate` is None where the row stayed as it was
    without an error.
    """

    id: UUID
    repository_id: UUID | None
    name: str | None
    sqlstate: str | None
    message: str

    @property
    def reason(self) -> str:
        """What the database said, for an operator."""
        return f"{self.message} ({self.sqlstate})" if self.sqlstate else self.message

    @property
    def shown_as(self) -> str:
        """The row's name for people."""
        return _shown_as(self)

    @property
    def for_good(self) -> bool:
        """Whether the fault is in the row. A full disk refuses every row, and is not the row's fault."""
        return is_about_a_row(self.sqlstate)


def _shown_as(row: PriorityUpdate | RefusedRow) -> str:
    if row.repository_id is None:
        return row_known_as(row.id, row.name)
    return known_as(row.repository_id, row.name)


@dataclass(frozen=True, slots=True)
class SyncAnswer(Sound):
    """The answer of `sync_…`, `sweep_…` and `resync_workspace_priorities_page`.

    `locked` are repositories whose row another transaction holds: they were skipped and must be retried.
    `refused` are rows that could not be written; the others were. `all_refused` is whether the application
    refuses every row, not only these; None if unknown. `applied_at` is by the database's clock. `next_after`
    is the key after which a resync continues (None at the end), `more` whether a sweep stopped at its limit.
    `database_seconds` is how long the call took inside the database, `writing_seconds` the part of a
    sweep's that depends on its limit.
    """

    examined: int
    workspace_repos: int
    tracked_only_repos: int
    untracked: int
    changed: int
    changes: tuple[PriorityUpdate, ...]
    applied_at: datetime
    locked: tuple[UUID, ...] = ()
    refused: tuple[RefusedRow, ...] = ()
    all_refused: bool | None = None
    next_after: UUID | None = None
    more: bool = False
    database_seconds: float = 0.0
    writing_seconds: float = 0.0

    def as_left(self, why: str) -> SyncAnswer:
        """Of a dry run: what it found is left as it is, because writing it takes too long."""
        rows = (RefusedRow(row.id, row.repository_id, row.name, None, why) for row in self.changes)
        return replace(self, changed=0, changes=(), refused=tuple(rows))


@dataclass(frozen=True, slots=True)
class RepositoryPriority:
    """One entry of `get_repository_priorities`: the row as it is, which may be wrong until it is synced.

    The priority may be missing or a value of the application's own; flag and count may be missing.
    """

    priority: str | None
    is_workspace_repo: bool | None
    workspace_count: int | None

    @property
    def effective(self) -> Priority:
        """The priority to queue with: high in a workspace whatever the row says; else what the row's counts
        as; else medium.
        """
        if self.is_workspace_repo:
            return "high"
        return level(self.priority) or DEFAULT_PRIORITY


@dataclass(frozen=True, slots=True)
class RepositoryIdsPage:
    """One page of `get_workspace_repository_ids`, in order; `next_after` is None on the last."""

    repository_ids: tuple[UUID, ...]
    next_after: UUID | None


@dataclass(slots=True)
class SyncResult:
    """The result of a sync over any number of calls.

    `untracked` counts repositories that are in a workspace but have no tracked row; they are reported, never
    created. `refused` are rows that the application does not allow to change; the others are right. `errors`
    are messages; a sync with errors is incomplete, but nothing is half-applied. `unavailable`: the failure
    may pass by itself.
    """

    examined: int = 0
    workspace_repos: int = 0
    tracked_only_repos: int = 0
    untracked: int = 0
    priority_changes: int = 0
    refused: list[RefusedRow] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unavailable: bool = False

    def fail(self, message: str, *, unavailable: bool = False) -> None:
        """Record why something was left undone."""
        if message not in self.errors:
            self.errors.append(message)
        self.unavailable = self.unavailable or unavailable

    def add(self, answer: SyncAnswer) -> None:
        """Add an answer."""
        self.examined += answer.examined
        self.workspace_repos += answer.workspace_repos
        self.tracked_only_repos += answer.tracked_only_repos
        self.untracked += answer.untracked
        self.priority_changes += answer.changed
        self.refused += (row for row in answer.refused if row.for_good)
        for row in answer.refused:
            if not row.for_good:
                self.fail(f"the database accepts no writes: {row.reason}", unavailable=True)
        if answer.locked:
            rows = "1 row is" if len(answer.locked) == 1 else f"{len(answer.locked):,} rows are"
            self.fail(f"{rows} locked by other transactions")
