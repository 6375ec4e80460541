"""The daemon, composed: the one place that knows all parts, and the one root task group.

    Realtime ─▶ Listener ─▶ Intake ─▶ WorkQueue ─▶ Worker ─▶ sync_workspace_priorities
                   │           └─ unnamed or too many ─▶ Sweeper ─▶ sweep_workspace_priorities
                   └─ gap ──────────────────────────────────┘
    schedule, start, SIGHUP ─▶ Resyncer ─▶ resync_workspace_priorities_page

    recorded changes ─▶ Dispatcher ─▶ Inngest        Inngest ─▶ FunctionHost ─▶ SyncFunction
    waiting jobs ─▶ Releaser ─▶ Inngest

    background_jobs ─▶ JobWatcher            everything ─▶ metrics, /status and the status page

What the timers start, Sweeper, Resyncer, Trimmer and JobWatcher do only while the Elector has the lease.

Order of a stop: the listener takes no more changes, then the sweeper and the worker finish what is waiting,
then the dispatcher announces what they changed, within the time that the settings give them.
"""

from __future__ import annotations

import signal
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import anyio
import structlog
from anyio.abc import TaskGroup

from priorityd.core import __version__
from priorityd.core.apply.drift import DriftJudge
from priorityd.core.apply.work_queue import WorkQueue
from priorityd.core.errors import ExitCode
from priorityd.core.history import History
from priorityd.core.pacing import SweepPace
from priorityd.core.stream.hints import Hint
from priorityd.daemon.apply.intake import Intake
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.apply.worker import Worker
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.database.api_key import Keyring
from priorityd.daemon.database.startup import wait_for_schema
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.inngest_side import InngestSide, Senders, open_senders
from priorityd.daemon.jobs.watcher import JobWatcher
from priorityd.daemon.leader.elector import Elector
from priorityd.daemon.liveness import BEAT_SECONDS, Progress
from priorityd.daemon.logs import hide
from priorityd.daemon.memory import TRIM_SECONDS, give_back_freed_memory
from priorityd.daemon.repair.resyncer import Resyncer
from priorityd.daemon.repair.sweeper import Sweeper
from priorityd.daemon.settings import Settings, is_in_environment, read_key
from priorityd.daemon.status.http import Probes, listen, serve
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.status.snapshotter import Snapshotter
from priorityd.daemon.stream.listener import Listener
from priorityd.daemon.systemd import Notifier
from priorityd.daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from priorityd.daemon.status.report import Report

log = structlog.stdlib.get_logger()

QUEUE_CAPACITY: Final = 50_000
"""Repositories that may wait; above it a sweep is cheaper than looking at each, and memory stays bounded."""


async def run_daemon(settings: Settings) -> ExitCode:
    """Run until SIGTERM or SIGINT.

    Raises `ConfigurationError`, `ContractError` and `KeyRefusedError`, possibly inside an exception group.
    """
    metrics, progress = Metrics(), Progress()
    keys = _keys(settings)
    async with AsyncExitStack() as opened:
        endpoint = opened.enter_context(listen(settings.http_host, settings.http_port))
        store = await opened.enter_async_context(
            open_store(
                settings.supabase_url,
                keys,
                on_error=lambda reason: metrics.apply.apply_errors.labels(reason).inc(),
            )
        )
        senders = await opened.enter_async_context(open_senders(settings, progress))
        return await App(settings, keys, store, senders, metrics, progress).run(endpoint)


async def _give_back_memory() -> None:
    while True:
        await anyio.sleep(TRIM_SECONDS)
        give_back_freed_memory()


def _keys(settings: Settings) -> Keyring:
    key = settings.supabase_key.get_secret_value()
    keys = Keyring(key, reread=read_key, is_fixed=is_in_environment, gateway_key=settings.plain_gateway_key)
    keys.on_change(hide)
    return keys


class App:
    """The parts and their lives."""

    def __init__(
        self,
        settings: Settings,
        keys: Keyring,
        store: Store,
        senders: Senders,
        metrics: Metrics,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._store = store
        self._metrics = metrics
        self._started_at = utc_now()
        self._daemon_id = uuid4()
        self._notifier = Notifier()
        self._progress = progress
        self._work_added = Wakeup()
        self._stop_asked = anyio.Event()
        self._forced = False
        self._listener_ended = anyio.Event()
        self._queue = WorkQueue(
            debounce_seconds=settings.debounce_seconds,
            max_wait_seconds=settings.max_wait_seconds,
            capacity=QUEUE_CAPACITY,
        )
        self._metrics.apply.watch_queue(
            lambda: self._queue.pending,
            lambda: self._queue.oldest_pending_seconds(monotonic()),
            lambda: self._queue.parked_count,
        )
        self._inngest = InngestSide(
            settings,
            store,
            senders,
            self._daemon_id,
            is_leader=lambda: self._elector.is_leader(),
            metrics=metrics,
            progress=progress,
        )
        self._history = History()
        self._drift_judge = DriftJudge()
        self._recorder = Recorder(metrics.apply, self._history, self._heed_recorded)
        self._intake = Intake(
            self._queue,
            self._work_added,
            drift_judge=self._drift_judge,
            ask_for_sweep=lambda trigger, committed_at: self._sweeper.request(trigger, committed_at),
        )
        self._elector = self._make_elector()
        self._sweeper = self._make_sweeper()
        self._resyncer = self._make_resyncer()
        self._worker = self._make_worker()
        self._listener = self._make_listener()
        keys.on_change(lambda _: self._listener.renew())
        self._snapshotter = Snapshotter(store, metrics=metrics.snapshots, progress=self._progress)
        self._job_watcher = self._make_job_watcher()
        self._inngest.answer_with(self._resyncer, self._recorder)

    async def run(self, endpoint: socket.socket) -> ExitCode:
        """Run until a signal ends it; serves HTTP from the first moment."""
        host, port = endpoint.getsockname()[:2]
        log.info("started", version=__version__, http=f"http://{host}:{port}")
        probes = Probes(
            not_alive=self._progress.stalled,
            not_ready=self._not_ready,
            status=self._status,
            refresh=self._metrics.refresh,
        )
        async with anyio.create_task_group() as root:
            root.start_soon(serve, endpoint, self._metrics.registry, probes)
            root.start_soon(self._heed_signals, root)
            root.start_soon(self._report_life)
            root.start_soon(_give_back_memory)
            self._notifier.ready("waiting for Supabase")
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(self._cancel_when_stopped, waiting)
                await wait_for_schema(self._store, lambda: self._progress.beat("start"))
                waiting.cancel_scope.cancel()
            self._progress.ended("start")
            if not self._stop_asked.is_set():
                await self._work()
            root.cancel_scope.cancel()
        left = self._queue.pending
        log.info("stopped", unfinished_repositories=left)
        return ExitCode.FAILED if self._forced and left else ExitCode.DONE

    async def _work(self) -> None:
        async with anyio.create_task_group() as parts:
            for part in (self._elector, self._resyncer, self._snapshotter, self._job_watcher):
                parts.start_soon(part.run)
            self._inngest.start(parts)
            parts.start_soon(self._listen)
            parts.start_soon(self._apply)
            parts.start_soon(self._stop_in_order, parts)

    async def _listen(self) -> None:
        try:
            await self._listener.run()
        finally:
            self._listener_ended.set()

    async def _apply(self) -> None:
        async with anyio.create_task_group() as parts:
            parts.start_soon(self._sweeper.run)
            parts.start_soon(self._worker.run)
        self._inngest.drain()

    async def _cancel_when_stopped(self, waiting: TaskGroup) -> None:
        await self._stop_asked.wait()
        waiting.cancel_scope.cancel()

    async def _stop_in_order(self, parts: TaskGroup) -> None:
        await self._stop_asked.wait()
        parts.cancel_scope.deadline = anyio.current_time() + self._settings.drain_seconds
        self._notifier.stopping("finishing what is waiting")
        log.info("stopping", pending_repositories=self._queue.pending)
        self._listener.stop()
        self._elector.stop()
        self._resyncer.stop()
        self._snapshotter.stop()
        self._job_watcher.stop()
        self._inngest.stop()
        await self._listener_ended.wait()
        self._sweeper.stop()
        self._worker.stop()

    async def _heed_signals(self, root: TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGHUP, signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    self._reload()
                elif self._stop_asked.is_set():
                    log.warning("forced_to_stop", pending_repositories=self._queue.pending)
                    self._forced = True
                    root.cancel_scope.cancel()
                else:
                    self._stop_asked.set()

    def _reload(self) -> None:
        self._notifier.reloading()
        self._keys.reload()
        log.info("resync_requested", trigger="signal")
        self._resyncer.request("signal")
        self._notifier.ready(self._summary())

    async def _report_life(self) -> None:
        limit = self._notifier.watchdog_seconds
        interval = min(BEAT_SECONDS, limit / 2) if limit else BEAT_SECONDS
        while True:
            stalled = self._progress.stalled()
            if stalled:
                log.error("stalled", parts=stalled)
            else:
                self._notifier.watchdog()
            if not self._stop_asked.is_set():
                self._notifier.status(self._summary())
            await anyio.sleep(interval)

    def _not_ready(self) -> list[str]:
        reasons = []
        if not self._resyncer.initial_done:
            reasons.append("the first full resync is not done")
        sweeping = self._sweeper.succeeding and self._elector.succeeding
        if self._listener.state.name != "live" and not sweeping:
            reasons.append("the change stream is not live and sweeps fail")
        if self._stop_asked.is_set():
            reasons.append("stopping")
        return reasons

    def _summary(self) -> str:
        ready = "ready" if not self._not_ready() else "not ready"
        return f"{ready}; listener {self._listener.state.name}; {self._queue.pending} repositories pending"

    def _status(self) -> Report:
        # Imported when somebody asks, by the thread that asks: see `daemon.status.http`.
        from priorityd.daemon.status.status import Sources, describe

        sources = Sources(
            started_at=self._started_at,
            listener=self._listener,
            queue=self._queue,
            sweeper=self._sweeper,
            resyncer=self._resyncer,
            recorder=self._recorder,
            history=self._history,
            snapshotter=self._snapshotter,
            job_watcher=self._job_watcher,
            dispatcher=self._inngest.dispatcher,
            function_host=self._inngest.function_host,
            releaser=self._inngest.releaser,
        )
        return describe(sources, not_ready=self._not_ready(), leader=self._elector.is_leader())

    def _heed_recorded(self) -> None:
        self._snapshotter.heard_of_change()
        self._inngest.wake()

    def _heed_hint(self, hint: Hint) -> None:
        self._snapshotter.heard_of_change()
        self._intake.take_hint(hint)

    def _make_elector(self) -> Elector:
        return Elector(
            self._store,
            self._daemon_id,
            on_elected=lambda: self._sweeper.take_over(),
            metrics=self._metrics.leader,
            progress=self._progress,
        )

    def _make_sweeper(self) -> Sweeper:
        pace = SweepPace(self._settings.sweep_interval_seconds, self._settings.debounce_seconds)
        return Sweeper(
            self._store,
            self._queue,
            self._intake,
            pace,
            is_leader=self._elector.is_leader,
            drift_judge=self._drift_judge,
            recorder=self._recorder,
            progress=self._progress,
            work_added=self._work_added,
        )

    def _make_resyncer(self) -> Resyncer:
        return Resyncer(
            self._store,
            self._intake,
            self._settings.resync_schedule,
            is_leader=self._elector.is_leader,
            recorder=self._recorder,
            progress=self._progress,
        )

    def _make_worker(self) -> Worker:
        return Worker(
            self._queue,
            self._store,
            batch_size=self._settings.batch_size,
            recorder=self._recorder,
            metrics=self._metrics.apply,
            progress=self._progress,
            wakeup=self._work_added,
        )

    def _make_job_watcher(self) -> JobWatcher:
        return JobWatcher(
            self._store,
            self._daemon_id,
            is_leader=self._elector.is_leader,
            history=self._history,
            metrics=self._metrics.jobs,
            progress=self._progress,
        )

    def _make_listener(self) -> Listener:
        return Listener(
            self._settings.supabase_url,
            self._keys,
            self._daemon_id,
            self._store,
            on_hint=self._heed_hint,
            on_gap=self._sweeper.request,
            metrics=self._metrics.stream,
            progress=self._progress,
        )
