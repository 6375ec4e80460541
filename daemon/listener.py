"""The listener: keeps one live subscription to the change stream and turns changes into work.

What it does next is decided by `core.listener_state`; what a change means by `core.events`. It also watches
the canary: the daemon writes its own heartbeat row every `BEAT_INTERVAL_SECONDS`, and if that row does not
come back the connection is stale, whatever the socket says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final, Protocol
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup

from core.errors import KeyRefusedError, PriorityError
from core.events import HEARTBEATS, Hint, MalformedChangeError, read_change
from core.listener_state import (
    Action,
    BeatOverdue,
    Failed,
    Input,
    ListenerState,
    Stop,
    Tick,
    initial,
    transition,
)
from core.priorities import Trigger
from daemon.clock import monotonic, utc_now
from daemon.metrics import Metrics
from daemon.progress import BEAT_SECONDS, Progress
from daemon.rows import Beat
from daemon.stream import ChangeStream
from daemon.wakeup import Wakeup

log = structlog.stdlib.get_logger()

BEAT_INTERVAL_SECONDS: Final = 30.0
BEAT_GRACE_SECONDS: Final = 10.0
"""How long a heartbeat row may take to come back; the stream's own delay is below a second."""
FIRST_BEAT_DELAY_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 2.0


class HeartbeatStore(Protocol):
    """What the listener needs of the database."""

    async def beat(self, daemon_id: UUID) -> Beat: ...


class Listener:
    """See the module's text.

    `on_hint` gets what each change says; `on_gap` is called when changes may have been missed.
    """

    def __init__(
        self,
        url: str,
        key: str,
        daemon_id: UUID,
        store: HeartbeatStore,
        *,
        on_hint: Callable[[Hint], None],
        on_gap: Callable[[Trigger], None],
        metrics: Metrics,
        progress: Progress,
        beat_interval_seconds: float = BEAT_INTERVAL_SECONDS,
        beat_grace_seconds: float = BEAT_GRACE_SECONDS,
    ) -> None:
        self._url = url
        self._key = key
        self._daemon_id = daemon_id
        self._store = store
        self._on_hint = on_hint
        self._on_gap = on_gap
        self._metrics = metrics
        self._progress = progress
        self._beat_interval_seconds = beat_interval_seconds
        self._beat_grace_seconds = beat_grace_seconds
        self._state, self._first_actions = initial(monotonic())
        self._inputs: list[Input] = []
        self._wakeup = Wakeup()
        self._stream: ChangeStream | None = None
        self._last_beat_seen_at = 0.0
        self._beats = anyio.CancelScope()

    @property
    def state(self) -> ListenerState:
        """Where the listener is now."""
        return self._state

    async def run(self) -> None:
        """Listen until `stop`."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_beats)
            self._act(self._first_actions, tasks)
            while self._state.name != "stopped":
                self._progress.beat("listener")
                await self._wakeup.wait(self._seconds_to_wait())
                self._take_inputs(tasks)
            self._beats.cancel()
            tasks.cancel_scope.deadline = anyio.current_time() + _CLOSE_SECONDS
        self._progress.ended("listener")

    def stop(self) -> None:
        """End `run`: close the connection and take no more changes."""
        self._tell(Stop())

    def _tell(self, event: Input) -> None:
        self._inputs.append(event)
        self._wakeup.set()

    def _seconds_to_wait(self) -> float:
        if self._inputs:
            return 0.0
        deadline = self._state.deadline
        return BEAT_SECONDS if deadline is None else min(BEAT_SECONDS, max(0.0, deadline - monotonic()))

    def _take_inputs(self, tasks: TaskGroup) -> None:
        events, self._inputs = [*self._inputs, Tick()], []
        for event in events:
            jitter = random.random()  # noqa: S311 - spreads load, keeps no secret
            old, (self._state, actions) = self._state, transition(self._state, event, monotonic(), jitter)
            self._report(old, self._state)
            self._act(actions, tasks)

    def _act(self, actions: list[Action], tasks: TaskGroup) -> None:
        for action in actions:
            match action:
                case Action.OPEN:
                    self._open(tasks)
                case Action.CLOSE:
                    self._close(tasks)
                case Action.ASK_FOR_SWEEP:
                    self._last_beat_seen_at = monotonic()
                    self._on_gap("reconnect")

    def _open(self, tasks: TaskGroup) -> None:
        self._stream = ChangeStream(
            self._url,
            self._key,
            self._daemon_id,
            on_change=self._receive,
            on_input=self._tell,
            on_unreadable=self._miss_a_change,
        )
        tasks.start_soon(self._stream.open)

    def _close(self, tasks: TaskGroup) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon()
            tasks.start_soon(stream.close)

    def _receive(self, data: Mapping[str, object]) -> None:
        # Called from the client's own task, which an exception would end without a word.
        try:
            hint = read_change(data)
            self._metrics.events.labels(hint.table, hint.operation).inc()
            self._metrics.stream_last_seen.set(utc_now().timestamp())
            if hint.table == HEARTBEATS:
                self._see_beat(hint)
            else:
                self._on_hint(hint)
        except MalformedChangeError as error:
            self._miss_a_change(str(error))
        except Exception:
            log.exception("change_not_handled")
            self._on_gap("event")

    def _miss_a_change(self, problem: str = "the frame could not be read") -> None:
        self._metrics.malformed_events.inc()
        log.warning("change_not_understood", problem=problem)
        self._on_gap("event")

    def _see_beat(self, hint: Hint) -> None:
        # Without `beat_at` it is a DELETE: filters do not apply to those, so it may be any daemon's row.
        if hint.beat_at is not None:
            self._last_beat_seen_at = monotonic()
            self._metrics.stream_lag.set(max(0.0, (utc_now() - hint.beat_at).total_seconds()))

    async def _watch_beats(self) -> None:
        # Shortly after going live, then at the interval; in no other state is there anything to find out.
        with self._beats:
            while True:
                await anyio.sleep(FIRST_BEAT_DELAY_SECONDS)
                live_since = self._state.since
                while self._is_live_since(live_since):
                    await self._beat_once(live_since)
                    await anyio.sleep(self._beat_interval_seconds - self._beat_grace_seconds)

    def _is_live_since(self, since: float) -> bool:
        return self._state.name == "live" and self._state.since == since

    async def _beat_once(self, live_since: float) -> None:
        sent_at = monotonic()
        try:
            await self._store.beat(self._daemon_id)
        except KeyRefusedError:
            raise
        except PriorityError as error:
            # Not written, so its absence says nothing about the stream.
            log.warning("heartbeat_not_written", error=str(error))
            return
        await anyio.sleep(self._beat_grace_seconds)
        if self._is_live_since(live_since) and self._last_beat_seen_at < sent_at:
            self._tell(BeatOverdue())

    def _report(self, old: ListenerState, new: ListenerState) -> None:
        if old.name == new.name:
            return
        self._metrics.set_state(new.name)
        match new.name:
            case "stale":
                self._report_failure(new, Failed("stale", "the heartbeat row did not come back"))
            case "backing_off" if new.last_failure is not None:
                self._report_failure(new, new.last_failure)
            case _:
                log.info("listener", state=new.name)

    def _report_failure(self, state: ListenerState, failure: Failed) -> None:
        self._metrics.reconnects.labels(failure.reason).inc()
        log.warning(
            "listener",
            state=state.name,
            reason=failure.reason,
            detail=failure.detail,
            retry_in_seconds=round(max(0.0, (state.deadline or 0.0) - monotonic()), 2),
        )
