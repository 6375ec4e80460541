"""What `/status` shows and the status page is made of, as a documented schema.

Times are UTC, durations seconds. From 1.0 on only additions are made to it.
What another room already has in the form in which it is shown is shown as it is, and declared there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from priorityd.core.database.answers import SyncResult
from priorityd.core.priorities import Priority, Trigger
from priorityd.core.status.outages import Outage
from priorityd.core.status.problems import Problem
from priorityd.core.vocabulary import JobStatus
from priorityd.daemon.database.rows import JobInversion, Snapshot
from priorityd.daemon.repair.runs import RecentRun


class Part(BaseModel):
    """Base of the parts below."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        # What has a default is shown as well.
        json_schema_serialization_defaults_required=True,
    )


class Failure(Part):
    """Why the last connection to the change stream ended."""

    reason: str
    detail: str


class ListenerReport(Part):
    """The change stream."""

    state: str
    since: datetime
    confirmed: bool
    """Whether a heartbeat row has come back through this connection."""
    failures: int
    """In a row, without having been healthy in between."""
    last_failure: Failure | None
    lag_seconds: float | None
    """Age of the last heartbeat row when it came back."""
    hears: bool
    """Whether it has come back lately: a live stream without it is deaf."""


class KnownReport(Part):
    """The age of what is known, in seconds of a monotonic clock."""

    database_seconds: float
    """Since the database last answered; since the start if it never has."""
    stream_seconds: float
    """Since the daemon's heartbeat row last came back through the stream; since the start if it never has."""
    repositories_seconds: float | None
    """Since the repositories were counted; None until they have been, after the first full resync."""
    clock_ahead_seconds: float | None
    """By how much this host's clock is ahead of the database's; negative: behind."""


class ParkedRepository(Part):
    """A repository whose row can't be written."""

    repository_id: UUID
    name: str | None
    """`owner/name` where that is known."""
    reason: str


class RefusedRowReport(Part):
    """A tracked row without a repository that can't be written."""

    tracked_repository_id: UUID
    name: str | None
    """`owner/name` where the row tells it."""
    reason: str


class QueueReport(Part):
    """Repositories that wait to be looked at, and what can't be written."""

    pending: int
    oldest_pending_seconds: float
    parked: int
    parked_repositories: list[ParkedRepository]
    """Some of them."""
    refused_rows_in_all: int
    """Tracked rows without a repository that can't be written."""
    refused_rows: list[RefusedRowReport]
    """Some of them."""
    all_refused_because: str | None
    """Why no row at all can be written; what waits is tried again. None while rows can be."""


class SweepReport(Part):
    """The search for rows that disagree with membership."""

    last_done_at: datetime | None
    succeeding: bool
    wanted: bool
    """Whether one was asked for or is under way."""
    drift_repaired: int
    """Rows that a timer found wrong and whose change the stream brought late or not at all, since the
    start."""


class ResyncReport(Part):
    """The walk over every tracked row."""

    last_done_at: datetime | None
    last_result: SyncResult | None
    next_at: datetime
    recent: list[RecentRun]
    """The newest first."""


class LastChange(Part):
    """The last row that this daemon changed."""

    at: datetime | None
    latency_seconds: float | None
    """From the commit of the change that caused it, by the database's clock; None where that is not known."""


class Change(Part):
    """A row that this daemon changed."""

    at: datetime
    tracked_repository_id: UUID
    """The row's own id."""
    repository_id: UUID | None
    """None until the application fills it in."""
    name: str | None
    """`owner/name` where that is known."""
    old_priority: str | None
    new_priority: str
    old_workspace_count: int
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
    """The oldest first, the current one last."""
    changes: int
    latency: dict[Priority, LatencyReport]
    outages: list[Outage]
    """The oldest first, also one that has begun before."""


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
    """Jobs that waited when they were counted."""

    count: int
    oldest_seconds: float


class HeldBack(Part):
    """A transaction that was open at every look, for so long."""

    pid: int | None
    """Its backend in `pg_stat_activity`; None for one in `pg_prepared_xacts`."""
    writes: bool
    """It has written or locked a row."""
    seconds: float


class JobReport(Part):
    """The application's job queue, `background_jobs`."""

    read_by_this_daemon: bool
    """One daemon of several reads it."""
    off_because: str | None
    """Why there is nothing to read; None while there is."""
    counted_until: datetime | None
    """What ended before is counted; a little behind the present, so that no late commit is missed."""
    held_back_by: HeldBack | None
    """Because of what `counted_until` does not move, if it has been so for more than one look."""
    queued: dict[Priority, QueuedJobs]
    queued_at: datetime | None
    """When these were counted; a long queue takes minutes to count."""
    queued_whole: bool
    """False until a long queue has been counted once: there are at least so many."""
    ended: dict[Priority, dict[JobStatus, int]]
    """In the last hour."""
    inversions: int
    """Jobs that were found to have overtaken one of a higher priority, in the last hour."""
    inversion_sample: list[JobInversion]
    """Some of them, the newest first."""


class OrderedJobsReport(Part):
    """The jobs that wait in the database and are released in order."""

    releasing: Literal[True]
    waiting: bool | None
    """Whether any wait; None until the first release."""
    in_flight: dict[Priority, int]
    """Released and not over, of all daemons, by the priority that they went with."""
    lost: int
    """Jobs without a report within their lease; they block nothing."""
    last_sent_at: datetime | None
    held_back_because: str | None
    """Why Inngest takes none; None while it does."""


class OrderedJobsOff(Part):
    """This daemon releases no jobs."""

    releasing: Literal[False] = False


class Report(Part):
    """The state of one daemon."""

    version: str
    project: str
    """The host of the Supabase project."""
    started_at: datetime
    at: datetime
    """When this was put together, by the daemon's clock."""
    headline: str
    """The worst problem, or else a sentence about the priorities."""
    priorities: str
    """A sentence about the priorities, whatever else is wrong."""
    problems: list[Problem]
    """The worst first; empty when all is well."""
    ready: bool
    not_ready_because: list[str]
    known: KnownReport
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
    snapshot: Snapshot | None
    """None until the first one has been taken."""
    jobs: JobReport
    ordered_jobs: OrderedJobsReport | OrderedJobsOff
