"""Offers the function `sync-workspace-priorities` to Inngest through the SDK's outbound worker
(`inngest.connect`), which needs no inbound port and no route from Inngest to this host.

The alternative is the serve handler: an endpoint that Inngest calls, signed, and registered by a request to
Inngest. The daemon's HTTP endpoints are read-only, need no login and belong on loopback; an endpoint that
must be reachable from the internet and has to verify signatures does not belong beside them.

What the worker (SDK 0.5.19, in its source) does by itself, and what is added here:

- It runs its connection in its own thread, and the functions in the event loop that started it: ours.
- It installs handlers for SIGTERM and SIGINT, unless it is given an empty list of signals.
- It reconnects as long as Inngest's API answers. After five failures within half a minute, and at once for a
  refused key, it ends with an exception: it is restarted after a delay that grows to five minutes.
- It waits for a handshake without limit, so a worker that is inactive for a minute is closed here. A silently
  dead connection is found by WebSocket pings within 40 s.
- When closed, it waits up to two hours for running functions. Ours end by themselves when the daemon stops;
  after some seconds the worker is abandoned. Its thread ends with the process.
- It logs the same thing several times, so its log is shown only at level debug; what matters is logged here.
- `protobuf`, which it needs, comes in wheels with a C library; the generated code loads with versions 5 to 7.
- Importing it causes a warning about one of its own classes (pydantic), which does not concern our users.

No failure leaves this module: it is logged, shown in `/status`, and retried.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import inngest
import structlog

from priorityd.core.backoff import Backoff
from priorityd.core.errors import PermanentError
from priorityd.daemon.agent import Agent
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.inngest.client import make_client
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from inngest.connect import ConnectionState, connect

if TYPE_CHECKING:
    from inngest.connect._internal.connection import WorkerConnection

log = structlog.stdlib.get_logger()

FUNCTION_ID: Final = "sync-workspace-priorities"
EVENT_NAME: Final = "workspace/priorities.sync"
RETRIES: Final = 2
HANDSHAKE_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 5.0
_FIRST_RETRY_SECONDS: Final = 5.0
_MAX_RETRY_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 1.0

Handler = Callable[[Mapping[str, object]], Awaitable[dict[str, Any]]]
HostState = Literal["connecting", "active", "backing_off", "stopped"]


class FunctionHost(Agent):
    """See the module's docstring. `daemon_id` identifies this daemon among the workers that Inngest shows."""

    name = "function_host"

    def __init__(self, settings: Settings, handler: Handler, daemon_id: str, *, liveness: Liveness) -> None:
        super().__init__(liveness)
        self._settings = settings
        self._handler = handler
        self._daemon_id = daemon_id
        self._backoff = Backoff(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
        self._active_at = 0.0
        self.state: HostState = "connecting"
        self.last_error: str | None = None
        self.last_run_at: datetime | None = None
        # The worker's own log, only at level debug.
        logger = logging.getLogger("inngest")
        logger.propagate = logging.getLogger().isEnabledFor(logging.DEBUG)
        logger.addHandler(logging.NullHandler())

    async def turn(self) -> float:
        """Stay connected; on stop, give a running function some seconds to finish."""
        now = monotonic()
        if now >= self._backoff.retry_at:
            self._set_state("connecting")
            self._active_at = now
            error = await self._connect()
            if not self._stopping:
                self._back_off(error)
        return self._backoff.retry_at - monotonic()

    async def at_end(self) -> None:
        """Report the state."""
        self._set_state("stopped")

    async def _connect(self) -> str:
        """Run one worker to its end; returns why it ended."""
        ended = "the connection was closed"
        try:
            worker = self._make_worker()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, worker, tasks.cancel_scope)
                try:
                    await worker.start()
                finally:
                    tasks.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - no failure of it may disturb the daemon
            ended = _words(error)
        return ended

    def _make_worker(self) -> WorkerConnection:
        client = make_client(self._settings)
        return connect(
            [(client, [self._make_function(client)])], instance_id=self._daemon_id, shutdown_signals=[]
        )

    def _make_function(self, client: inngest.Inngest) -> inngest.Function[Any]:
        @client.create_function(
            fn_id=FUNCTION_ID,
            name="Sync Workspace Repository Priorities",
            concurrency=[inngest.Concurrency(limit=1)],
            retries=RETRIES,
            trigger=inngest.TriggerEvent(event=EVENT_NAME),
        )
        async def sync_workspace_priorities(context: inngest.Context) -> dict[str, Any]:
            return await self._run_function(context.event.data)

        return sync_workspace_priorities

    async def _run_function(self, data: Mapping[str, object]) -> dict[str, Any]:
        self.last_run_at = utc_now()
        try:
            result = await self._handler(data)
        except PermanentError as error:
            log.warning("sync_event_refused", error=str(error))
            raise inngest.NonRetriableError(str(error)) from None
        except Exception as error:  # only to log it: Inngest retries
            log.warning("sync_event_failed", error=_words(error))
            raise
        log.info("sync_event_answered", priority_changes=result["priorityChanges"])
        return result

    async def _watch(self, worker: WorkerConnection, scope: anyio.CancelScope) -> None:
        while not self._stopping and not self._is_stuck(worker):
            self.tick()
            await self._wakeup.wait(_LOOK_SECONDS)
        await worker.close()
        await anyio.sleep(CLOSE_SECONDS)
        scope.cancel()

    def _is_stuck(self, worker: WorkerConnection) -> bool:
        now = monotonic()
        if worker.get_state() is ConnectionState.ACTIVE:
            self._active_at, self.last_error = now, None
            self._backoff.worked()
            self._set_state("active")
        else:
            self._set_state("connecting")
        return now - self._active_at > HANDSHAKE_SECONDS

    def _back_off(self, error: str) -> None:
        delay = self._backoff.failed(monotonic())
        self.last_error = error
        self._set_state("backing_off")
        log.warning("function_host_failed", error=error, retry_in_seconds=round(delay, 1))

    def _set_state(self, state: HostState) -> None:
        if state != self.state and "active" in (state, self.state):
            log.info("function_host_state_changed", state=state, function=FUNCTION_ID)
        self.state = state


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if str(error) == "unauthorized":
        return "Inngest refused the signing key (INNGEST_SIGNING_KEY)"
    return (str(error) or type(error).__name__)[:300]
