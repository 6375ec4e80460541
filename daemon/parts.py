"""The parts of the daemon, composed: the one place that knows all of them.

    Realtime ─▶ Listener ─▶ Intake ─▶ WorkQueue ─▶ Worker ─▶ sync_workspace_priorities
                   │           └─ unnamed or too many ─▶ Sweeper ─▶ sweep_workspace_priorities
                   └─ gap ──────────────────────────────────┘
    schedule, start, SIGHUP ─▶ Resyncer ─▶ resync_workspace_priorities_page

    recorded changes ─▶ Dispatcher ─▶ Inngest        Inngest ─▶ FunctionHost ─▶ SyncFunction
    waiting jobs ─▶ Releaser ─▶ Inngest

    background_jobs ─▶ JobWatcher            everything ─▶ metrics, /status and the status page

Sweeper, Resyncer, Trimmer and JobWatcher work by timer only while the Elector has the lease.

Agents do not know each other. They share passive things, which are made first: one adds to the work queue or
requests a sweep, another takes it; the elector writes who leads, and the others read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from priorityd.core.apply.drift import DriftJudge
from priorityd.core.apply.work_queue import WorkQueue
from priorityd.core.heartbeat import Heartbeat
from priorityd.core.history import History
from priorityd.core.news import News
from priorityd.core.pacing import SweepPace
from priorityd.core.repair.pending_runs import PendingRuns
from priorityd.core.status.outages import Outages
from priorityd.daemon.agent import Agent
from priorityd.daemon.apply.intake import Intake
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.apply.worker import Worker
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.database.store import Store
from priorityd.daemon.inngest.sync_function import SyncFunction
from priorityd.daemon.inngest_side import Senders, make_dispatcher, make_function_host, make_releaser
from priorityd.daemon.jobs.ordered_jobs import OrderedJobs
from priorityd.daemon.jobs.watcher import JobWatcher
from priorityd.daemon.leader.elector import Elector
from priorityd.daemon.leader.leadership import Leadership
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.outbox.outbox import Outbox
from priorityd.daemon.outbox.trimmer import Trimmer
from priorityd.daemon.repair.drift_watch import DriftWatch
from priorityd.daemon.repair.resyncer import Resyncer
from priorityd.daemon.repair.runs import Runs
from priorityd.daemon.repair.sweeper import Sweeper
from priorityd.daemon.settings import Settings
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.status.snapshotter import Snapshotter
from priorityd.daemon.stream.listener import Listener
from priorityd.daemon.wakeup import Wakeup

QUEUE_CAPACITY: Final = 50_000
"""The most repositories that wait; above it a sweep is cheaper, and memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all parts use: the settings, the connections, and what they report to.

    `daemon_id` owns the lease, the claims and the heartbeat row.
    """

    settings: Settings
    api_key: ApiKey
    store: Store
    senders: Senders
    metrics: Metrics
    liveness: Liveness
    daemon_id: UUID


class Shared:
    """The passive things that the agents share."""

    def __init__(self, means: Means) -> None:
        settings, metrics = means.settings, means.metrics
        self.queue = WorkQueue(
            debounce_seconds=settings.debounce_seconds,
            max_wait_seconds=settings.max_wait_seconds,
            capacity=QUEUE_CAPACITY,
        )
        metrics.apply.watch(self.queue)
        self.work_added = Wakeup()
        self.sweeps = PendingRuns()
        self.leadership, self.heartbeat = Leadership(), Heartbeat()
        self.heard, self.recorded, self.resynced = News(), News(), News()
        self.history, self.outages = History(), Outages()
        self.database_clock = DatabaseClock()
        self.drift_judge = DriftJudge()
        self.recorder = Recorder(metrics.apply, self.history, self.recorded, self.database_clock)
        self.runs = Runs(metrics.repair, self.history)
        self.intake = Intake(
            self.queue,
            self.work_added,
            drift_judge=self.drift_judge,
            ask_for_sweep=self.sweeps.add,
            heard=self.heard,
        )


class Agents:
    """The agents, each given what it reads and writes.

    The listener, the sweeper, the worker and the dispatcher end one after the other (see `daemon.app`);
    `others` are the rest, in any order.
    """

    def __init__(self, means: Means, shared: Shared) -> None:
        settings, store, daemon_id = means.settings, means.store, means.daemon_id
        metrics, liveness, is_leader = means.metrics, means.liveness, shared.leadership.is_held
        self.listener = Listener(
            settings.supabase_url,
            means.api_key,
            daemon_id,
            shared.heartbeat,
            shared.database_clock,
            on_hint=shared.intake.take_hint,
            on_gap=shared.sweeps.add,
            metrics=metrics.stream,
            liveness=liveness,
        )
        self.worker = Worker(
            shared.queue,
            store,
            batch_size=settings.batch_size,
            recorder=shared.recorder,
            metrics=metrics.apply,
            calls=metrics.database,
            liveness=liveness,
            wakeup=shared.work_added,
        )
        self.drift_watch = DriftWatch(
            store,
            shared.drift_judge,
            shared.runs,
            shared.database_clock,
            self.listener.whole_since,
        )
        self.elector = Elector(
            store,
            daemon_id,
            shared.leadership,
            shared.heartbeat,
            metrics=metrics.leader,
            liveness=liveness,
        )
        self.sweeper = Sweeper(
            store,
            shared.queue,
            shared.intake,
            SweepPace(settings.sweep_interval_seconds, settings.debounce_seconds),
            requests=shared.sweeps,
            leadership=shared.leadership,
            drift_watch=self.drift_watch,
            recorder=shared.recorder,
            runs=shared.runs,
            liveness=liveness,
            work_added=shared.work_added,
        )
        self.resyncer = Resyncer(
            store,
            shared.intake,
            settings.resync_schedule,
            is_leader=is_leader,
            recorder=shared.recorder,
            runs=shared.runs,
            done=shared.resynced,
            liveness=liveness,
        )
        self.snapshotter = Snapshotter(
            store,
            news=(shared.heard, shared.recorded),
            resynced=shared.resynced,
            database_clock=shared.database_clock,
            metrics=metrics.snapshots,
            liveness=liveness,
        )
        self.job_watcher = JobWatcher(
            store,
            daemon_id,
            is_leader=is_leader,
            history=shared.history,
            metrics=metrics.jobs,
            liveness=liveness,
        )
        outbox = Outbox(store, daemon_id)
        trimmer = Trimmer(outbox, settings.change_retention_days, is_leader=is_leader, liveness=liveness)
        self.dispatcher = make_dispatcher(
            settings, store, outbox, means.senders.announcer, metrics.outbox, liveness
        )
        if self.dispatcher is not None:
            shared.recorded.subscribe(self.dispatcher.wake)
        self.releaser = make_releaser(
            settings,
            OrderedJobs(store, daemon_id),
            means.senders,
            is_leader=is_leader,
            metrics=metrics.releases,
            liveness=liveness,
        )
        function = SyncFunction(store, self.resyncer, recorder=shared.recorder)
        self.function_host = make_function_host(settings, function, str(daemon_id), liveness)
        there = (
            self.elector,
            self.resyncer,
            self.snapshotter,
            self.job_watcher,
            trimmer,
            self.releaser,
            self.function_host,
        )
        self.others: list[Agent] = [agent for agent in there if agent is not None]
