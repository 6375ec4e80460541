"""Answers of the SQL functions that only the edges read: operators' commands, status and checks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from priorityd.core.database.answers import RefusedRow, Sound, SyncAnswer
from priorityd.core.database.schema import SchemaVersion
from priorityd.core.names import known_as
from priorityd.core.priorities import Expected, Label, Priority
from priorityd.core.vocabulary import JobStatus


@dataclass(frozen=True, slots=True)
class CountedRepositories:
    """How many tracked repositories have this flag and priority."""

    is_workspace_repo: bool
    priority: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Snapshot(Sound):
    """The answer of `workspace_priority_snapshot`; `taken_at` is by the database's clock.

    `held` are tracked repositories in a workspace, `inversions` those of them whose priority is neither high
    nor critical: by memberships, whatever the rows' flags say.
    """

    repositories: tuple[CountedRepositories, ...]
    held: int
    inversions: int
    untracked: int
    schema_version: int
    taken_at: datetime
    outbox_pending: int = 0
    outbox_oldest_seconds: float = 0.0
    outbox_abandoned: int = 0


@dataclass(frozen=True, slots=True)
class FoundRepository:
    """One entry of `find_repositories`: a known repository; `tracked`: it has a priority."""

    repository_id: UUID
    name: str | None
    tracked: bool

    @property
    def shown_as(self) -> str:
        """The repository's name for people."""
        return known_as(self.repository_id, self.name)


@dataclass(frozen=True, slots=True)
class TrackedRow:
    """The current state of a repository's tracked row, and what its priority should be.

    A priority may be a value of the application's own.
    """

    id: UUID
    priority: str | None
    is_workspace_repo: bool | None
    workspace_count: int | None
    manual_priority: str | None
    expected_priority: str
    correct: bool


@dataclass(frozen=True, slots=True)
class HoldingWorkspace(Sound):
    """A workspace that holds the repository. One that is switched off does not count.

    Its `id` is a uuid, a number or a text, as in the application's tables.
    """

    id: str
    counts: bool
    name: str | None = None
    added_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer of `explain_repository_priority`; `tracked` is None for an untracked repository.

    If there are several rows, `tracked` is the most relevant one, and the rest are `other_rows`. Of the
    `workspaces_in_all` that hold the repository, and of its `changes_in_all`, only some are listed.
    """

    repository_id: UUID
    tracked: TrackedRow | None
    other_rows: tuple[TrackedRow, ...]
    workspaces: tuple[HoldingWorkspace, ...]
    workspaces_in_all: int
    expected: Expected
    correct: bool
    last_changes: tuple[dict[str, Any], ...]
    changes_in_all: int
    name: str | None = None

    @property
    def rows(self) -> tuple[TrackedRow, ...]:
        """All rows, the most relevant first."""
        return (self.tracked, *self.other_rows) if self.tracked else ()


@dataclass(frozen=True, slots=True)
class PinAnswer(SyncAnswer):
    """The answer of `set_manual_priority`; `old_manual_priority` may be a word of the application's own."""

    old_manual_priority: str | None = None
    manual_priority: Label | None = None


@dataclass(frozen=True, slots=True)
class RollbackAnswer(Sound):
    """The answer of `rollback_workspace_priorities`.

    `locked` counts rows locked by others: call it again. `refused` lists some of the `unwritten` rows, which
    the application refuses to change.
    """

    changed: int
    locked: int
    applied_at: datetime
    unwritten: int = 0
    refused: tuple[RefusedRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Beat(Sound):
    """The answer of `beat_workspace_priorities`, by the database's clock."""

    beat_at: datetime


@dataclass(frozen=True, slots=True)
class LeaseAnswer(Sound):
    """The answer of `hold_workspace_priority_lease`.

    `held`: the daemon that asked has the lease. `expires_in_seconds` is how long its holder keeps it without
    asking again.
    """

    held: bool
    expires_in_seconds: float


@dataclass(frozen=True, slots=True)
class PublicationCheck:
    """What the publication that Realtime reads actually publishes of the followed tables.

    `tables` are published under their own names, as a subscription requires; `flaws` says what of a table is
    not published nevertheless. `missing` tables are not published at all. `unidentified` ones have neither a
    primary key nor a replica identity: once published, their updates and deletes fail. `unsafe` are all
    tables in the publication with that fault, including the application's; `repairs` has, by table, the
    statement that publishes it completely, where that breaks nothing.
    """

    exists: bool
    owner: str | None
    tables: tuple[str, ...]
    missing: tuple[str, ...]
    unidentified: tuple[str, ...]
    partitioned: tuple[str, ...]
    flaws: dict[str, tuple[str, ...]]
    repairs: dict[str, str]
    unsafe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefusedWrite:
    """Why this number of `rows` can't be written; without a `sqlstate` they silently stayed as they were.

    `culprits` names the triggers, constraints or policies, in words; `look` is a query that shows them.
    """

    rows: int
    sqlstate: str
    message: str
    culprits: tuple[str, ...]
    look: str | None


@dataclass(frozen=True, slots=True)
class WritesCheck:
    """The result of writing this number of tracked `rows`, which was rolled back."""

    rows: int
    refused: tuple[RefusedWrite, ...]


@dataclass(frozen=True, slots=True)
class MembershipsCheck:
    """What counts as a membership: whether an operator has redefined it, and what a query costs, in ms.

    `inlined`: the planner inlines `priorityd.memberships()`; else a sweep takes several times as long.
    """

    own: bool
    inlined: bool
    memberships: int
    one_ms: float
    all_ms: float


@dataclass(frozen=True, slots=True)
class MembershipTableCheck:
    """The properties of `workspace_repositories` that decide how much a DELETE reveals."""

    exists: bool
    row_level_security: bool
    replica_identity: str
    primary_key: tuple[str, ...]
    delete_names_repository: bool


@dataclass(frozen=True, slots=True)
class DatabaseCheck:
    """The answer of `check_workspace_priorities`.

    `missing_functions` were applied and are gone, `ungranted` are our objects that the role may not use.
    `writes` is None if the role may not write, or may not see every row.
    """

    role: str
    schema_version: SchemaVersion
    publication: PublicationCheck
    refuses_wal2json: bool
    hidden: tuple[str, ...]
    memberships: MembershipsCheck
    missing_indexes: tuple[str, ...]
    workspace_repositories: MembershipTableCheck
    missing_functions: tuple[str, ...]
    ungranted: tuple[str, ...]
    writes: WritesCheck | None


@dataclass(frozen=True, slots=True)
class FinishedJobs:
    """Jobs of one priority that ended with the same status. Unknown times are left out, so lengths differ."""

    priority: Priority
    status: JobStatus
    jobs: int
    wait_seconds: tuple[float, ...]
    run_seconds: tuple[float, ...]
    total_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WaitingJobs:
    """Jobs of one priority that are queued, and how long the oldest has been queued."""

    priority: Priority
    jobs: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class JobQueue(Sound):
    """What was queued at `counted_at`, by the database's clock, and how long ago that is.

    A long queue is counted over several polls. `whole` is False until the first count is complete: the
    numbers are then lower bounds.
    """

    jobs: tuple[WaitingJobs, ...]
    whole: bool
    counted_at: datetime
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Holder:
    """The transaction that keeps ended jobs from being counted, and for how long it has been seen.

    `pid` is its backend's, None if it is prepared; `writes`: it has written or locked a row.
    """

    pid: int | None
    writes: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class JobInversion:
    """A job that overtook one of higher priority that was queued no later, `waiting_job_id` for one.

    Both with their repositories, where they have one, and its `owner/name`, where that is known.
    """

    job_id: UUID
    repository_id: UUID | None
    name: str | None
    priority: Priority
    started_at: datetime
    waiting_job_id: UUID
    waiting_repository_id: UUID | None
    waiting_name: str | None
    waiting_priority: Priority


@dataclass(frozen=True, slots=True)
class JobInversions:
    """How many there were among the starts of a page, and the last few of them."""

    count: int
    sample: tuple[JobInversion, ...]


@dataclass(frozen=True, slots=True)
class JobPage(Sound):
    """A page of ended jobs from `poll_background_jobs`; `queue` comes with the last page only.

    `counted_until` is by the database's clock: what ended before it is in this page or an earlier one.
    """

    page: int
    finished: tuple[FinishedJobs, ...]
    inversions: JobInversions
    queue: JobQueue | None
    more: bool
    counted_until: datetime
    held_back_by: Holder | None
    database_seconds: float


@dataclass(frozen=True, slots=True)
class NoJobs:
    """The other answer of `poll_background_jobs`: why there is nothing to read.

    `table_exists`: the application has a table of jobs, so something is wrong with it.
    """

    available: Literal[False]
    table_exists: bool
    reason: str
