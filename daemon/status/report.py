"""What `/status` shows and the status page is made of, as a documented schema.

Times are UTC, durations seconds. Only additions are made to it: what is there keeps its name and meaning.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from priorityd.core.priorities import Priority, Trigger
from priorityd.core.status.problems import Severity
from priorityd.core.vocabulary import JobStatus


class Part(BaseModel):
    """Base of the parts below."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ShownProblem(Part):
    """Something that is not as it should be."""

    severity: Severity
    text: str


class Failure(Part):
    """Why the last connection to the change stream ended."""

    reason: str
    detail: str


class ListenerReport(Part):
    """The change stream."""

    state: str
    since: datetime
    failures: int
    """In a row, without having been healthy in between."""
    last_failure: Failure | None
    lag_seconds: float | None
    """Age of the last heartbeat row when it came back."""


class QueueReport(Part):
    """Repositories that wait to be looked at."""

    pending: int
    oldest_pending_seconds: float
    parked: int
    parked_repositories: dict[UUID, str]
    """Some of them, with the reason of each."""


class SweepReport(Part):
    """The search for rows that disagree with membership."""

    last_done_at: datetime | None
    succeeding: bool
    drift_repaired: int
    """Rows that a timer found wrong and no change had announced, since the start."""


class Refusal(Part):
    """A tracked row that the application does not let change."""

    id: UUID
    repository_id: UUID | None
    name: str | None
    sqlstate: str | None
    message: str


class ResyncResult(Part):
    """What the last full resync that succeeded came to."""

    examined: int
    workspace_repos: int
    tracked_only_repos: int
    untracked: int
    priority_changes: int
    refused: list[Refusal]
    errors: list[str]


class Run(Part):
    """A full resync, or a sweep that found something or failed."""

    kind: str
    trigger: Trigger
    outcome: str
    ended_at: datetime
    seconds: float
    examined: int | None
    """Rows; None for a sweep, which looks at what is wrong only."""
    changed: int


class ResyncReport(Part):
    """The walk over every tracked row."""

    last_done_at: datetime | None
    last_result: ResyncResult | None
    next_at: datetime
    recent: list[Run]
    """The newest first."""


class LastChange(Part):
    """The last row that this daemon changed."""

    at: datetime | None
    latency_seconds: float | None
    """From the commit of the change that caused it, by the database's clock; None where that is not known."""


class Change(Part):
    """A row that this daemon changed."""

    at: datetime
    repository_id: UUID | None
    old_priority: str | None
    new_priority: Priority
    workspace_count: int
    trigger: Trigger
    latency_seconds: float | None


class LatencyReport(Part):
    """Latencies of changes by the priority they led to; quantiles are right to within a few percent."""

    count: int
    p50_seconds: float | None
    p95_seconds: float | None


class MinuteReport(Part):
    """What happened from `at` on for a minute."""

    at: datetime
    changes: dict[Priority, int]
    latency: dict[Priority, LatencyReport]


class HistoryReport(Part):
    """The last hour of this daemon."""

    minutes: list[MinuteReport]
    """The oldest first, the one that is not over last."""
    changes: int
    latency: dict[Priority, LatencyReport]


class RepositoryCount(Part):
    """Tracked repositories by flag and priority."""

    is_workspace_repo: bool
    priority: str | None
    count: int


class SnapshotReport(Part):
    """Counts of the whole, as of `taken_at` by the database's clock."""

    repositories: list[RepositoryCount]
    inversions: int
    """Workspace repositories whose priority is not high."""
    untracked: int
    outbox_pending: int
    outbox_oldest_seconds: float
    outbox_abandoned: int
    schema_version: int
    taken_at: datetime


class OutboxReport(Part):
    """The announcements of changes to Inngest."""

    dispatching: Literal[True]
    pending: int | None
    """Changes that wait to be announced; None until they have been counted."""
    oldest_seconds: float | None
    abandoned: int | None
    """Given up because an event was refused."""
    last_sent_at: datetime | None
    last_error: str | None


class OutboxOff(Part):
    """This daemon announces nothing."""

    dispatching: Literal[False] = False


class FunctionReport(Part):
    """The function that Inngest calls for a sync."""

    hosted: Literal[True]
    state: str
    last_run_at: datetime | None
    last_error: str | None


class FunctionOff(Part):
    """This daemon hosts no function."""

    hosted: Literal[False] = False


class QueuedJobs(Part):
    """Jobs that wait now."""

    count: int
    oldest_seconds: float


class OvertakenJob(Part):
    """`job_id` started while the older `waiting_job_id` of a higher priority was waiting."""

    job_id: UUID
    priority: Priority
    started_at: datetime
    waiting_job_id: UUID
    waiting_priority: Priority


class JobReport(Part):
    """The application's job queue, `background_jobs`."""

    read_by_this_daemon: bool
    """One daemon of several reads it."""
    off_because: str | None
    """Why there is nothing to read; None while there is."""
    counted_until: datetime | None
    """What ended before is counted; a little behind the present, so that no late commit is missed."""
    queued: dict[Priority, QueuedJobs]
    ended: dict[Priority, dict[JobStatus, int]]
    """In the last hour."""
    inversions: int
    """Jobs that were found to have overtaken an older one of a higher priority, in the last hour."""
    inversion_sample: list[OvertakenJob]


class OrderedJobsReport(Part):
    """The jobs that wait in the database and are released in order."""

    releasing: Literal[True]
    waiting: bool | None
    """Whether any wait; None until the first release."""
    in_flight: dict[Priority, int]
    """Released and not over, of all daemons, by the priority that they went with."""
    last_sent_at: datetime | None
    held_back_because: str | None
    """Why Inngest takes none; None while it does."""


class OrderedJobsOff(Part):
    """This daemon releases no jobs."""

    releasing: Literal[False] = False


class Report(Part):
    """The state of one daemon."""

    version: str
    started_at: datetime
    at: datetime
    """When this was put together, by the daemon's clock."""
    headline: str
    problems: list[ShownProblem]
    """The worst first; empty when all is well."""
    ready: bool
    not_ready_because: list[str]
    leader: bool
    """Whether the timer work is this daemon's."""
    listener: ListenerReport
    queue: QueueReport
    sweep: SweepReport
    resync: ResyncReport
    last_change: LastChange
    recent_changes: list[Change] = Field(max_length=100)
    """The newest first."""
    history: HistoryReport
    outbox: OutboxReport | OutboxOff
    sync_function: FunctionReport | FunctionOff
    snapshot: SnapshotReport | None
    """None until the first one has been taken."""
    jobs: JobReport
    ordered_jobs: OrderedJobsReport | OrderedJobsOff
