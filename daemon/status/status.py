"""Puts together what `/status` and the status page show, from the daemon's parts, without secrets."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from priorityd.core import __version__
from priorityd.core.history import Latencies, Minute, merged
from priorityd.core.priorities import PRIORITIES, Priority
from priorityd.core.status.facts import Facts
from priorityd.core.status.health import Health
from priorityd.core.status.outages import Outage
from priorityd.core.status.problems import is_heard
from priorityd.core.vocabulary import JOB_STATUSES
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.jobs.releaser import Releaser
from priorityd.daemon.jobs.watcher import JobWatcher
from priorityd.daemon.outbox.dispatcher import Dispatcher
from priorityd.daemon.repair.resyncer import Resyncer
from priorityd.daemon.repair.runs import Runs
from priorityd.daemon.status.facts import Sources, lost_jobs
from priorityd.daemon.status.report import (
    Change,
    Failure,
    FunctionOff,
    FunctionReport,
    HeldBack,
    HistoryReport,
    JobReport,
    KnownReport,
    LastChange,
    LatencyReport,
    ListenerReport,
    MinuteReport,
    OrderedJobsOff,
    OrderedJobsReport,
    OutboxOff,
    OutboxReport,
    ParkedRepository,
    QueuedJobs,
    QueueReport,
    RefusedRowReport,
    Report,
    ResyncReport,
    SweepReport,
)
from priorityd.daemon.stream.listener import Listener

if TYPE_CHECKING:
    # It needs the Inngest SDK; see `daemon.inngest_side`.
    from priorityd.daemon.inngest.function_host import FunctionHost

MAX_PARKED_SHOWN: Final = 20
_NO_LATENCY: Final = LatencyReport(count=0, p50_seconds=None, p95_seconds=None)


def describe(sources: Sources, facts: Facts, health: Health) -> Report:
    """The report of this moment."""
    now = utc_now()
    minutes = sources.history.minutes(now)
    leader = sources.leadership.is_held()
    return Report(
        version=__version__,
        project=sources.project,
        started_at=sources.started_at,
        at=now,
        headline=health.headline,
        priorities=health.priorities,
        problems=list(health.problems),
        ready=health.ready,
        not_ready_because=list(health.not_ready_because),
        known=_known(facts),
        leader=leader,
        listener=_listener(sources.listener, facts, now),
        queue=_queue(sources, facts),
        sweep=SweepReport(
            last_done_at=sources.sweeper.last_done_at,
            succeeding=facts.repair.sweeps and sources.sweeper.failure is None,
            wanted=sources.sweeper.is_wanted,
            drift_repaired=sources.drift_watch.drift_repaired,
        ),
        resync=_resync(sources.resyncer, sources.runs),
        last_change=LastChange(
            at=sources.recorder.last_change_at, latency_seconds=sources.recorder.last_latency_seconds
        ),
        recent_changes=_changes(sources.recorder),
        history=_history(minutes, sources.outages.recent(now)),
        outbox=_outbox(sources.dispatcher),
        sync_function=_sync_function(sources.function_host),
        snapshot=sources.snapshotter.latest,
        jobs=_jobs(sources.job_watcher, minutes, leader=leader),
        ordered_jobs=_ordered_jobs(sources.releaser),
    )


def _known(facts: Facts) -> KnownReport:
    counts, ahead = facts.counts, facts.database.clock_ahead_seconds
    return KnownReport(
        database_seconds=round(facts.database.silent_seconds, 1),
        stream_seconds=round(facts.stream.unheard_seconds, 1),
        repositories_seconds=None if counts is None else round(counts.age_seconds, 1),
        clock_ahead_seconds=None if ahead is None else round(ahead, 1),
    )


def _listener(listener: Listener, facts: Facts, now: datetime) -> ListenerReport:
    state = listener.state
    failure = state.last_failure
    return ListenerReport(
        state=state.name,
        since=now - timedelta(seconds=monotonic() - state.since),
        confirmed=state.confirmed,
        failures=state.failures,
        last_failure=Failure(reason=failure.reason, detail=failure.detail) if failure else None,
        lag_seconds=listener.lag_seconds,
        hears=facts.stream.heard and is_heard(facts.stream),
    )


def _queue(sources: Sources, facts: Facts) -> QueueReport:
    queue, recorder, nameless = sources.queue, sources.recorder, sources.intake.nameless
    parked = queue.parked
    return QueueReport(
        pending=queue.pending,
        oldest_pending_seconds=round(queue.oldest_pending_seconds(monotonic()), 3),
        parked=len(parked),
        parked_repositories=[
            ParkedRepository(repository_id=key, name=recorder.refused_names.get(key), reason=parked[key])
            for key in list(parked)[:MAX_PARKED_SHOWN]
        ],
        refused_rows_in_all=len(nameless),
        refused_rows=[
            RefusedRowReport(tracked_repository_id=row.id, name=row.name, reason=row.reason)
            for row in list(nameless.values())[:MAX_PARKED_SHOWN]
        ],
        all_refused_because=facts.queue.all_refused_because,
    )


def _resync(resyncer: Resyncer, runs: Runs) -> ResyncReport:
    return ResyncReport(
        last_done_at=resyncer.last_done_at,
        last_result=resyncer.last_result,
        next_at=resyncer.next_at,
        recent=list(runs.recent),
    )


def _changes(recorder: Recorder) -> list[Change]:
    return [
        Change(
            at=recent.at,
            tracked_repository_id=recent.update.id,
            repository_id=recent.update.repository_id,
            name=recent.update.name,
            old_priority=recent.update.old_priority,
            new_priority=recent.update.new_priority,
            old_workspace_count=recent.update.old_workspace_count,
            workspace_count=recent.update.workspace_count,
            trigger=recent.trigger,
            latency_seconds=recent.latency_seconds,
        )
        for recent in recorder.recent
    ]


def _history(minutes: list[Minute], outages: list[Outage]) -> HistoryReport:
    return HistoryReport(
        minutes=[
            MinuteReport(
                at=minute.at,
                changes={priority: minute.changes[priority] for priority in PRIORITIES},
                latency=_latencies([minute]),
            )
            for minute in minutes
        ],
        changes=sum(minute.changes.total() for minute in minutes),
        latency=_latencies(minutes),
        outages=outages,
    )


def _latencies(minutes: list[Minute]) -> dict[Priority, LatencyReport]:
    known = {
        priority: [minute.latencies[priority] for minute in minutes if priority in minute.latencies]
        for priority in PRIORITIES
    }
    return {priority: _latency(each) if each else _NO_LATENCY for priority, each in known.items()}


def _latency(latencies: list[Latencies]) -> LatencyReport:
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
        inversion_sample=watcher.inversions_since(minutes[0].at),
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


def _ordered_jobs(releaser: Releaser | None) -> OrderedJobsReport | OrderedJobsOff:
    if releaser is None:
        return OrderedJobsOff()
    release = releaser.release
    return OrderedJobsReport(
        releasing=True,
        waiting=release.waiting if release else None,
        in_flight={each: release.in_flight.get(each, 0) if release else 0 for each in PRIORITIES},
        lost=lost_jobs(releaser),
        last_sent_at=releaser.last_sent_at,
        held_back_because=releaser.held_back_because,
    )
