"""Puts together what `/status` and the status page show, from the parts as they are, without secrets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from priorityd.core import __version__
from priorityd.core.apply.work_queue import WorkQueue
from priorityd.core.history import History, Latencies, Minute, merged
from priorityd.core.priorities import PRIORITIES
from priorityd.core.status.problems import Facts, find_problems, headline
from priorityd.core.vocabulary import JOB_STATUSES
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.database.rows import Snapshot
from priorityd.daemon.inngest.function_host import FunctionHost
from priorityd.daemon.jobs.releaser import Releaser
from priorityd.daemon.jobs.watcher import JobWatcher
from priorityd.daemon.outbox.dispatcher import Dispatcher
from priorityd.daemon.repair.resyncer import Resyncer
from priorityd.daemon.repair.sweeper import Sweeper
from priorityd.daemon.status.report import (
    Change,
    Failure,
    FunctionOff,
    FunctionReport,
    HeldBack,
    HistoryReport,
    JobReport,
    LastChange,
    LatencyReport,
    ListenerReport,
    MinuteReport,
    OrderedJobsOff,
    OrderedJobsReport,
    OutboxOff,
    OutboxReport,
    QueuedJobs,
    QueueReport,
    Report,
    ResyncReport,
    SweepReport,
)
from priorityd.daemon.status.snapshotter import Snapshotter
from priorityd.daemon.stream.listener import Listener

MAX_PARKED_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts that know something."""

    started_at: datetime
    listener: Listener
    queue: WorkQueue
    sweeper: Sweeper
    resyncer: Resyncer
    recorder: Recorder
    history: History
    snapshotter: Snapshotter
    job_watcher: JobWatcher
    dispatcher: Dispatcher | None
    function_host: FunctionHost | None
    releaser: Releaser | None


def describe(sources: Sources, *, not_ready: list[str], leader: bool) -> Report:
    """The report of this moment."""
    now = utc_now()
    minutes = sources.history.minutes(now)
    listener, queue = _listener(sources.listener, now), _queue(sources.queue)
    snapshot = sources.snapshotter.latest
    resync = _resync(sources.resyncer, sources.recorder)
    jobs = _jobs(sources.job_watcher, minutes, leader=leader)
    facts = _facts(not_ready, now, listener, queue, resync, snapshot, jobs, sources, minutes)
    return Report(
        version=__version__,
        started_at=sources.started_at,
        at=now,
        headline=headline(facts),
        problems=find_problems(facts),
        ready=not not_ready,
        not_ready_because=not_ready,
        leader=leader,
        listener=listener,
        queue=queue,
        sweep=SweepReport(
            last_done_at=sources.sweeper.last_done_at,
            succeeding=sources.sweeper.succeeding,
            drift_repaired=sources.sweeper.drift_repaired,
        ),
        resync=resync,
        last_change=LastChange(
            at=sources.recorder.last_change_at, latency_seconds=sources.recorder.last_latency_seconds
        ),
        recent_changes=_changes(sources.recorder),
        history=_history(minutes),
        outbox=_outbox(sources.dispatcher),
        sync_function=_sync_function(sources.function_host),
        snapshot=snapshot,
        jobs=jobs,
        ordered_jobs=_ordered_jobs(sources.releaser),
    )


def _facts(
    not_ready: list[str],
    now: datetime,
    listener: ListenerReport,
    queue: QueueReport,
    resync: ResyncReport,
    snapshot: Snapshot | None,
    jobs: JobReport,
    sources: Sources,
    minutes: list[Minute],
) -> Facts:
    depth = sources.dispatcher.depth if sources.dispatcher else None
    full = [run for run in resync.recent if run.kind == "full"]
    failure = listener.last_failure
    return Facts(
        not_ready_because=tuple(not_ready),
        workspace_repositories=workspace_repositories(snapshot) if snapshot else None,
        inversions=snapshot.inversions if snapshot else None,
        untracked=snapshot.untracked if snapshot else 0,
        listener_state=listener.state,
        listener_seconds=(now - listener.since).total_seconds(),
        listener_failure=": ".join(filter(None, (failure.reason, failure.detail))) if failure else None,
        # Before the first one there is nothing to say; not being ready says it.
        sweeps_succeed=sources.sweeper.succeeding or sources.sweeper.last_done_at is None,
        parked=queue.parked,
        oldest_pending_seconds=queue.oldest_pending_seconds,
        drift_repaired=sum(minute.drift_repaired for minute in minutes),
        last_resync_failed=bool(full) and full[0].outcome == "failed",
        # Where nothing is announced, nothing waits for it.
        outbox_oldest_seconds=depth.oldest_seconds if depth else 0.0,
        jobs_off_because=jobs.off_because,
        job_inversions=jobs.inversions,
        high_jobs_completed=jobs.ended["high"]["completed"],
        high_jobs_failed=jobs.ended["high"]["failed"],
        oldest_jobs_seconds={priority: queued.oldest_seconds for priority, queued in jobs.queued.items()},
        jobs_held_back_because=sources.releaser.held_back_because if sources.releaser else None,
        jobs_lost=_lost(sources.releaser),
    )


def workspace_repositories(snapshot: Snapshot) -> int:
    """How many repositories were in a workspace when they were counted."""
    return sum(row.count for row in snapshot.repositories if row.is_workspace_repo)


def _listener(listener: Listener, now: datetime) -> ListenerReport:
    state = listener.state
    failure = state.last_failure
    return ListenerReport(
        state=state.name,
        since=now - timedelta(seconds=monotonic() - state.since),
        failures=state.failures,
        last_failure=Failure(reason=failure.reason, detail=failure.detail) if failure else None,
        lag_seconds=listener.lag_seconds,
    )


def _queue(queue: WorkQueue) -> QueueReport:
    parked = queue.parked
    return QueueReport(
        pending=queue.pending,
        oldest_pending_seconds=round(queue.oldest_pending_seconds(monotonic()), 3),
        parked=len(parked),
        parked_repositories={key: parked[key] for key in list(parked)[:MAX_PARKED_SHOWN]},
    )


def _resync(resyncer: Resyncer, recorder: Recorder) -> ResyncReport:
    return ResyncReport(
        last_done_at=resyncer.last_done_at,
        last_result=resyncer.last_result,
        next_at=resyncer.next_at,
        recent=list(recorder.recent_runs),
    )


def _changes(recorder: Recorder) -> list[Change]:
    return [
        Change(
            at=recent.at,
            repository_id=recent.update.repository_id,
            old_priority=recent.update.old_priority,
            new_priority=recent.update.new_priority,
            workspace_count=recent.update.workspace_count,
            trigger=recent.trigger,
            latency_seconds=recent.latency_seconds,
        )
        for recent in recorder.recent
    ]


def _history(minutes: list[Minute]) -> HistoryReport:
    return HistoryReport(
        minutes=[
            MinuteReport(
                at=minute.at,
                changes={priority: minute.changes[priority] for priority in PRIORITIES},
                latency={priority: _latency([minute.latencies[priority]]) for priority in PRIORITIES},
            )
            for minute in minutes
        ],
        changes=sum(minute.changes.total() for minute in minutes),
        latency={
            priority: _latency(minute.latencies[priority] for minute in minutes) for priority in PRIORITIES
        },
    )


def _latency(latencies: Iterable[Latencies]) -> LatencyReport:
    whole = merged(latencies)
    quantiles = (whole.quantile(0.5), whole.quantile(0.95))
    p50, p95 = (None if seconds is None else round(seconds, 4) for seconds in quantiles)
    return LatencyReport(count=len(whole), p50_seconds=p50, p95_seconds=p95)


def _jobs(watcher: JobWatcher, minutes: list[Minute], *, leader: bool) -> JobReport:
    queue, holder = watcher.queue, watcher.latest.held_back_by if watcher.latest else None
    queued = {each.priority: each for each in queue.jobs} if queue else {}
    return JobReport(
        read_by_this_daemon=leader,
        off_because=watcher.off_because,
        counted_until=watcher.latest.counted_until if watcher.latest else None,
        held_back_by=HeldBack(pid=holder.pid, writes=holder.writes, seconds=round(holder.seconds, 3))
        if holder
        else None,
        queued={
            priority: QueuedJobs(
                count=queued[priority].jobs if priority in queued else 0,
                oldest_seconds=round(queued[priority].oldest_seconds, 3) if priority in queued else 0.0,
            )
            for priority in PRIORITIES
        },
        queued_at=queue.counted_at if queue else None,
        queued_whole=queue.whole if queue else True,
        ended={
            priority: {
                status: sum(minute.jobs[priority, status] for minute in minutes) for status in JOB_STATUSES
            }
            for priority in PRIORITIES
        },
        inversions=sum(minute.job_inversions for minute in minutes),
        inversion_sample=list(watcher.inversions),
    )


def _outbox(dispatcher: Dispatcher | None) -> OutboxReport | OutboxOff:
    if dispatcher is None:
        return OutboxOff()
    depth = dispatcher.depth
    return OutboxReport(
        dispatching=True,
        pending=depth.pending if depth else None,
        oldest_seconds=round(depth.oldest_seconds, 3) if depth else None,
        abandoned=depth.abandoned if depth else None,
        last_sent_at=dispatcher.last_sent_at,
        last_error=dispatcher.last_error,
    )


def _sync_function(host: FunctionHost | None) -> FunctionReport | FunctionOff:
    if host is None:
        return FunctionOff()
    return FunctionReport(
        hosted=True, state=host.state, last_run_at=host.last_run_at, last_error=host.last_error
    )


def _lost(releaser: Releaser | None) -> int:
    return releaser.release.lost_now if releaser and releaser.release else 0


def _ordered_jobs(releaser: Releaser | None) -> OrderedJobsReport | OrderedJobsOff:
    if releaser is None:
        return OrderedJobsOff()
    release = releaser.release
    return OrderedJobsReport(
        releasing=True,
        waiting=release.waiting if release else None,
        in_flight={each: release.in_flight.get(each, 0) if release else 0 for each in PRIORITIES},
        lost=_lost(releaser),
        last_sent_at=releaser.last_sent_at,
        held_back_because=releaser.held_back_because,
    )
