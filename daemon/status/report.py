"""The report that `/status` returns and the status page is made from, as a documented schema.

Times are in UTC, durations in seconds. From 1.0 on, fields are only added. Types that another room already
has in the right form are used as they are declared there.
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
        # Fields with a default are always present as well.
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
    """Consecutive ones, without a healthy connection in between."""
    last_failure: Failure | None
    lag_seconds: float | None
    """Age of the last heartbeat row when it came back."""
    hears: bool
    """Whether one has come back recently: a live stream without it is deaf."""


class KnownReport(Part):
    """The age of the information, in seconds of a monotonic clock."""

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
    """`owner/name` where the row has it."""
    reason: str


class QueueReport(Part):
    """Repositories that wait to be synced, and rows that can't be written."""

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
    """Why no row at all can be written; None while rows can be. Waiting repositories are retried."""


class SweepReport(Part):
    """The search for rows that disagree with membership."""

    last_done_at: datetime | None
    succeeding: bool
    wanted: bool
    """Whether one was asked for or is under way."""
    drift_repaired: int
    """Rows that periodic sweeps found wrong since the start and whose change the stream delivered late or not
    at all."""


class ResyncReport(Part):
    """The walk over every tracked row."""

    last_done_at: datetime | None
    last_result: SyncResult | None
    """Of refused rows it has some."""
    next_at: datetime
    recent: list[RecentRun]
    """The newest first."""


class LastChange(Part):
    """The last row that this daemon changed."""

    at: datetime | None
    latency_seconds: float | None
    """From the commit of the change that caused it, by the database's clock; None if that is not known."""


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
    """Latencies of changes to one priority; quantiles are accurate to within a few percent."""

    count: int
    p50_seconds: float | None
    p95_seconds: float | None


class MinuteReport(Part):
    """What happened in the minute that began `at`."""

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
    """The oldest first; the first may have begun earlier."""


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
    """A transaction that was open at every poll for `seconds`."""

    pid: int | None
    """Its backend in `pg_stat_activity`; None for a prepared one, in `pg_prepared_xacts`."""
    writes: bool
    """It has written or locked a row."""
    seconds: float


class JobReport(Part):
    """The application's job queue, `background_jobs`."""

    read_by_this_daemon: bool
    """Of several daemons, only the leader reads it."""
    off_because: str | None
    """Why there is nothing to read; None while there is."""
    counted_until: datetime | None
    """Jobs that ended before are counted; it is a little behind the present, so that no late commit is
    missed."""
    held_back_by: HeldBack | None
    """What keeps `counted_until` from advancing, if it has done so for more than one poll."""
    queued: dict[Priority, QueuedJobs]
    queued_at: datetime | None
    """When these were counted; a long queue takes minutes to count."""
    queued_whole: bool
    """False until a long queue has been counted once: the numbers are then lower bounds."""
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
    """Released and neither ended nor lost, of all daemons, by their priority at release."""
    lost: int
    """Jobs without a report within their lease; they hold up no others."""
    last_sent_at: datetime | None
    held_back_because: str | None
    """Why no job can be sent to Inngest; None while jobs can."""


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
    """A sentence about the priorities, regardless of what else is wrong."""
    problems: list[Problem]
    """The worst first; empty when all is well."""
    ready: bool
    not_ready_because: list[str]
    known: KnownReport
    leader: bool
    """Whether this daemon does the timer work."""
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
