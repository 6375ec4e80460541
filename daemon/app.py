"""The life of the daemon: the one root task group, signals, notifying the supervisor, and the end.

Order of a stop: the listener takes no more changes, then the sweeper and the worker finish what is waiting,
then the dispatcher announces what they changed, all within the configured time.
"""

from __future__ import annotations

import signal
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import structlog
from anyio.abc import TaskGroup

from priorityd.core import __version__
from priorityd.core.errors import ExitCode
from priorityd.core.status.facts import Facts
from priorityd.core.status.health import Health, judge
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.database.api_key import ApiKey, KeyPair
from priorityd.daemon.database.startup import wait_for_schema
from priorityd.daemon.database.store import open_store
from priorityd.daemon.inngest_side import open_senders
from priorityd.daemon.liveness import TICK_SECONDS, Liveness
from priorityd.daemon.logs import hide
from priorityd.daemon.parts import Agents, Means, Shared
from priorityd.daemon.settings import Settings, load_settings, url_of
from priorityd.daemon.status.facts import Sources, read_facts
from priorityd.daemon.status.http import Probes, listen, serve
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.systemd import Notifier

if TYPE_CHECKING:
    from priorityd.daemon.status.report import Report

log = structlog.stdlib.get_logger()


async def run_daemon(settings: Settings) -> ExitCode:
    """Run until SIGTERM or SIGINT.

    Raises `ConfigurationError`, and before it has worked once also `ContractError` and `KeyRefusedError`,
    possibly inside an exception group.
    """
    metrics, liveness = Metrics(), Liveness()
    api_key = _api_key(settings)
    async with AsyncExitStack() as opened:
        endpoint = opened.enter_context(listen(settings.http_host, settings.http_port))
        store = await opened.enter_async_context(
            open_store(
                settings.supabase_url,
                api_key,
                on_error=lambda reason: metrics.database.call_errors.labels(reason).inc(),
            )
        )
        senders = await opened.enter_async_context(open_senders(settings, liveness))
        means = Means(settings, api_key, store, senders, metrics, liveness, uuid4())
        return await App(means).run(endpoint)


def _api_key(settings: Settings) -> ApiKey:
    key, gateway_key = _keys_of(settings)
    api_key = ApiKey(key, reread=lambda: _keys_of(load_settings()), gateway_key=gateway_key)
    api_key.on_change(lambda keys: hide(*filter(None, keys)))
    return api_key


def _keys_of(settings: Settings) -> KeyPair:
    return KeyPair(settings.supabase_key.get_secret_value(), settings.plain_gateway_key)


class App:
    """See the module's docstring."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._liveness = means.liveness
        self._shared = Shared(means)
        self._agents = Agents(means, self._shared)
        self._sources = sources_of(means, self._shared, self._agents)
        self._notifier = Notifier()
        self._stop_asked = anyio.Event()
        self._forced = False
        self._listener_ended = anyio.Event()

    async def run(self, endpoint: socket.socket) -> ExitCode:
        """Run until a signal ends it; serves HTTP from the first moment."""
        host, port = endpoint.getsockname()[:2]
        log.info("started", version=__version__, http=url_of(host, port))
        probes = Probes(
            not_alive=self._liveness.stalled,
            not_ready=lambda: list(self._health().not_ready_because),
            status=self._status,
            refresh=self._refresh,
            blocked=self._means.metrics.health.blocked,
            identity=f"priorityd/{__version__} ({self._sources.project})",
        )
        async with anyio.create_task_group() as root:
            root.start_soon(serve, endpoint, self._means.metrics.registry, probes)
            root.start_soon(self._heed_signals, root)
            root.start_soon(self._report_life)
            self._notifier.ready("waiting for Supabase")
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(self._cancel_when_stopped, waiting)
                await wait_for_schema(self._means.store, lambda: self._liveness.tick("start"))
                waiting.cancel_scope.cancel()
            self._liveness.ended("start")
            self._means.store.outlive_refusals()
            if not self._stop_asked.is_set():
                await self._work()
            root.cancel_scope.cancel()
        left = self._shared.queue.pending
        log.info("stopped", repositories=left)
        return ExitCode.FAILED if self._forced and left else ExitCode.DONE

    async def _work(self) -> None:
        async with anyio.create_task_group() as parts:
            for agent in self._agents.others:
                parts.start_soon(agent.run)
            if self._agents.dispatcher is not None:
                parts.start_soon(self._agents.dispatcher.run)
            parts.start_soon(self._listen)
            parts.start_soon(self._apply)
            parts.start_soon(self._stop_in_order, parts)

    async def _listen(self) -> None:
        try:
            await self._agents.listener.run()
        finally:
            self._listener_ended.set()

    async def _apply(self) -> None:
        async with anyio.create_task_group() as parts:
            parts.start_soon(self._agents.sweeper.run)
            parts.start_soon(self._agents.worker.run)
        # Nothing changes any more.
        if self._agents.dispatcher is not None:
            self._agents.dispatcher.stop()

    async def _cancel_when_stopped(self, waiting: TaskGroup) -> None:
        await self._stop_asked.wait()
        waiting.cancel_scope.cancel()

    async def _stop_in_order(self, parts: TaskGroup) -> None:
        await self._stop_asked.wait()
        parts.cancel_scope.deadline = anyio.current_time() + self._means.settings.drain_seconds
        self._notifier.stopping("finishing what is waiting")
        log.info("stopping", repositories=self._shared.queue.pending)
        self._agents.listener.stop()
        for agent in self._agents.others:
            agent.stop()
        await self._listener_ended.wait()
        self._agents.sweeper.stop()
        self._agents.worker.stop()

    async def _heed_signals(self, root: TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGHUP, signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    self._reload()
                elif self._stop_asked.is_set():
                    log.warning("stop_forced", repositories=self._shared.queue.pending)
                    self._forced = True
                    root.cancel_scope.cancel()
                else:
                    self._stop_asked.set()

    def _reload(self) -> None:
        self._notifier.reloading()
        self._means.api_key.reload()
        log.info("resync_requested", trigger="signal")
        self._agents.resyncer.request("signal")
        self._notifier.ready(self._summary())

    async def _report_life(self) -> None:
        limit = self._notifier.watchdog_seconds
        interval = min(TICK_SECONDS, limit / 2) if limit else TICK_SECONDS
        while True:
            stalled = self._liveness.stalled()
            if stalled:
                log.error("stalled", parts=stalled)
            else:
                self._notifier.watchdog()
            if not self._stop_asked.is_set():
                self._notifier.status(self._summary())
            await anyio.sleep(interval)

    def _judge(self) -> tuple[Facts, Health]:
        facts = read_facts(self._sources, stopping=self._stop_asked.is_set())
        health = judge(facts)
        self._shared.outages.note(facts, health.problems, utc_now())
        return facts, health

    def _health(self) -> Health:
        return self._judge()[1]

    def _refresh(self) -> None:
        self._means.metrics.refresh()
        self._means.metrics.health.show(*self._judge())

    def _summary(self) -> str:
        pending = self._shared.queue.pending
        wait = "repository waits" if pending == 1 else "repositories wait"
        return self._health().line + (f" {pending:,} {wait}." if pending else "")

    def _status(self) -> Report:
        # Imported on the first request, by its thread: see `daemon.status.http`.
        from priorityd.daemon.status.status import describe

        return describe(self._sources, *self._judge())


def sources_of(means: Means, shared: Shared, agents: Agents) -> Sources:
    """Where the status is read from."""
    return Sources(
        started_at=utc_now(),
        started=monotonic(),
        project=urlsplit(means.settings.supabase_url).netloc,
        sweep_interval_seconds=means.settings.sweep_interval_seconds,
        listener=agents.listener,
        queue=shared.queue,
        intake=shared.intake,
        worker=agents.worker,
        elector=agents.elector,
        leadership=shared.leadership,
        sweeper=agents.sweeper,
        drift_watch=agents.drift_watch,
        resyncer=agents.resyncer,
        recorder=shared.recorder,
        runs=shared.runs,
        history=shared.history,
        outages=shared.outages,
        database_clock=shared.database_clock,
        snapshotter=agents.snapshotter,
        job_watcher=agents.job_watcher,
        dispatcher=agents.dispatcher,
        function_host=agents.function_host,
        releaser=agents.releaser,
    )
