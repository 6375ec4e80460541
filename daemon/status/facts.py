"""Collects from the daemon's parts the facts that its health is judged by, each with its age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from priorityd.core.apply.work_queue import WorkQueue
from priorityd.core.history import History
from priorityd.core.status.facts import (
    CountFacts,
    DatabaseFacts,
    Facts,
    Holder,
    InngestFacts,
    JobFacts,
    LeaderFacts,
    QueueFacts,
    RepairFacts,
    StreamFacts,
)
from priorityd.core.status.outages import Outages
from priorityd.daemon.apply.intake import Intake
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.apply.worker import Worker
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.jobs.releaser import Releaser
from priorityd.daemon.jobs.watcher import JobWatcher
from priorityd.daemon.leader.elector import Elector
from priorityd.daemon.leader.leadership import Leadership
from priorityd.daemon.outbox.dispatcher import Dispatcher
from priorityd.daemon.repair.drift_watch import DriftWatch
from priorityd.daemon.repair.resyncer import Resyncer
from priorityd.daemon.repair.runs import Runs
from priorityd.daemon.repair.sweeper import Sweeper
from priorityd.daemon.status.snapshotter import Snapshotter
from priorityd.daemon.stream.listener import Listener

if TYPE_CHECKING:
    # It needs the Inngest SDK; see `daemon.inngest_side`.
    from priorityd.daemon.inngest.function_host import FunctionHost

_UNANSWERED: Final = ("timeout", "network")
"""Reasons of failures without any answer."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts that the facts come from. `started` is when they started, in monotonic seconds."""

    started_at: datetime
    started: float
    project: str
    sweep_interval_seconds: float
    listener: Listener
    queue: WorkQueue
    intake: Intake
    worker: Worker
    elector: Elector
    leadership: Leadership
    sweeper: Sweeper
    drift_watch: DriftWatch
    resyncer: Resyncer
    recorder: Recorder
    runs: Runs
    history: History
    outages: Outages
    database_clock: DatabaseClock
    snapshotter: Snapshotter
    job_watcher: JobWatcher
    dispatcher: Dispatcher | None
    function_host: FunctionHost | None
    releaser: Releaser | None


def read_facts(sources: Sources, *, stopping: bool) -> Facts:
    """What is known now."""
    now = monotonic()
    return Facts(
        up_seconds=now - sources.started,
        stopping=stopping,
        database=_database(sources, now),
        stream=_stream(sources, now),
        repair=_repair(sources),
        leader=LeaderFacts(sources.leadership.lease.unled_seconds),
        queue=_queue(sources, now),
        counts=_counts(sources, now),
        inngest=_inngest(sources, now),
        jobs=_jobs(sources),
    )


def _database(sources: Sources, now: float) -> DatabaseFacts:
    elector, failure = sources.elector, sources.elector.failure
    return DatabaseFacts(
        silent_seconds=now - (elector.answered_at or sources.started),
        failure=str(failure) if failure else None,
        unanswered=failure is None or failure.reason in _UNANSWERED,
        clock_ahead_seconds=sources.database_clock.host_ahead_seconds(),
    )


def _stream(sources: Sources, now: float) -> StreamFacts:
    listener = sources.listener
    # A live one has recovered from its last failure.
    failure = listener.state.last_failure if listener.state.name != "live" else None
    return StreamFacts(
        state=listener.state.name,
        heard=listener.heard_at is not None,
        unheard_seconds=now - (listener.heard_at or sources.started),
        failure=": ".join(filter(None, (failure.reason, failure.detail))) if failure else None,
    )


def _repair(sources: Sources) -> RepairFacts:
    sweeper, minutes = sources.sweeper, sources.history.eventful_minutes(utc_now())
    return RepairFacts(
        started=sources.resyncer.first_done_at is not None,
        sweeps=sweeper.has_succeeded,
        overdue_seconds=sweeper.overdue_seconds(),
        failure=str(sweeper.failure) if sweeper.failure else None,
        interval_seconds=sources.sweep_interval_seconds,
        last_resync_failed=sources.runs.last_resync_failed,
        late_or_lost=sum(minute.drift_repaired for minute in minutes),
    )


def _queue(sources: Sources, now: float) -> QueueFacts:
    queue, nameless = sources.queue, sources.intake.nameless
    reasons = [*queue.parked.values(), *(row.reason for row in nameless.values())]
    return QueueFacts(
        oldest_pending_seconds=queue.oldest_pending_seconds(now),
        parked=queue.parked_count,
        nameless=len(nameless),
        refused_because=next(iter(reasons), None),
        # Refused rows wait: if none does, another daemon has written them.
        all_refused_because=sources.worker.all_refused_because if queue.pending else None,
    )


def _counts(sources: Sources, now: float) -> CountFacts | None:
    snapshotter, resynced_at = sources.snapshotter, sources.resyncer.first_done_at
    snapshot, counted_at = snapshotter.latest, snapshotter.latest_at
    if snapshot is None or counted_at is None or resynced_at is None or counted_at < resynced_at:
        return None
    return CountFacts(
        workspace_repositories=snapshot.held,
        inversions=snapshot.inversions,
        inverted_seconds=snapshotter.inverted_seconds(),
        untracked=snapshot.untracked,
        age_seconds=now - counted_at,
        overdue_seconds=snapshotter.overdue_seconds(),
    )


def _inngest(sources: Sources, now: float) -> InngestFacts:
    dispatcher, releaser = sources.dispatcher, sources.releaser
    # Without a dispatcher, nothing waits to be announced.
    failing_since = dispatcher.failing_since if dispatcher else None
    depth = dispatcher.depth if dispatcher else None
    return InngestFacts(
        announcing_failed_seconds=now - failing_since if failing_since is not None else 0.0,
        announcing_failed_because=dispatcher.last_error if dispatcher else None,
        oldest_seconds=depth.oldest_seconds if depth else 0.0,
        jobs_held_back_because=releaser.held_back_because if releaser else None,
    )


def _jobs(sources: Sources) -> JobFacts:
    watcher, database_now = sources.job_watcher, sources.database_clock.now()
    minutes = sources.history.eventful_minutes(utc_now())
    latest = watcher.latest
    behind = (database_now - latest.counted_until).total_seconds() if database_now and latest else 0.0
    holder = latest.held_back_by if latest else None
    return JobFacts(
        off_because=watcher.off.because if watcher.off and watcher.off.table_exists else None,
        behind_seconds=behind,
        held_back_by=Holder(holder.pid, holder.seconds) if holder else None,
        inversions=sum(minute.job_inversions for minute in minutes),
        high_completed=sum(minute.jobs["high", "completed"] for minute in minutes),
        high_failed=sum(minute.jobs["high", "failed"] for minute in minutes),
        oldest_seconds={each.priority: each.oldest_seconds for each in watcher.queue.jobs}
        if watcher.queue
        else {},
        lost=lost_jobs(sources.releaser),
    )


def lost_jobs(releaser: Releaser | None) -> int:
    """Ordered jobs without a report within their lease."""
    return releaser.release.lost_now if releaser and releaser.release else 0
