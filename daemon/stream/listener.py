"""The listener: maintains a live subscription to the change stream and turns changes into work.

`core.stream.listener_state` decides what it does next, and `core.stream.hints` what a change means. A
heartbeat row that comes back shows that a connection which looks healthy really delivers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup

from priorityd.core.heartbeat import Heartbeat
from priorityd.core.priorities import Trigger
from priorityd.core.stream.hints import HEARTBEATS, Hint, MalformedChangeError, read_change
from priorityd.core.stream.listener_state import (
    NO_BEAT,
    Action,
    BeatOverdue,
    BeatSeen,
    Failed,
    Input,
    ListenerState,
    Renew,
    Stop,
    Subscribed,
    SuccessorFailed,
    SuccessorSubscribed,
    Tick,
    initial,
    transition,
)
from priorityd.core.stream.membership_memory import MembershipMemory
from priorityd.daemon.clock import monotonic, utc_now
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.liveness import TICK_SECONDS, Liveness
from priorityd.daemon.stream.connection import ChangeStream
from priorityd.daemon.stream.metrics import StreamMetrics
from priorityd.daemon.stream.timings import USUAL, Timings
from priorityd.daemon.wakeup import Wakeup

log = structlog.stdlib.get_logger()

MISSES_LOGGED_SECONDS: Final = 10.0
"""At most one log line about unreadable changes in this time: a server may send nothing else."""
_CLOSE_SECONDS: Final = 2.0
_DOUBTFUL: Final = ("refused", "join_failed", "subscription_error")
"""Failures that an expired or revoked key may cause."""


class Listener:
    """See the module's docstring.

    `on_hint` gets the hint in each change; `on_gap` is called when changes may have been missed.
    """

    def __init__(
        self,
        url: str,
        api_key: ApiKey,
        daemon_id: UUID,
        heartbeat: Heartbeat,
        database_clock: DatabaseClock,
        *,
        on_hint: Callable[[Hint], None],
        on_gap: Callable[[Trigger], None],
        metrics: StreamMetrics,
        liveness: Liveness,
        timings: Timings = USUAL,
    ) -> None:
        self._url = url
        self._api_key = api_key
        self._daemon_id = daemon_id
        self._on_hint = on_hint
        self._on_gap = on_gap
        self._metrics = metrics
        self._liveness = liveness
        self._linger_seconds = timings.linger_seconds
        self._heartbeat = heartbeat
        self._database_clock = database_clock
        self._state, self._first_actions = initial(
            monotonic(),
            renew_after_seconds=timings.renew_after_seconds,
            backoff_max_seconds=timings.backoff_max_seconds,
        )
        # Each with its connection: what it means depends on the connection's role when it is handled.
        self._inputs: list[tuple[ChangeStream | None, Input]] = []
        self._wakeup = Wakeup()
        self._memory = MembershipMemory()
        self._misses_unlogged = 0
        self._misses_logged_until = 0.0
        self._stream: ChangeStream | None = None
        self._successor: ChangeStream | None = None
        self._stopped = anyio.Event()
        self._whole_since: float | None = None
        api_key.on_change(lambda _: self.renew())

    @property
    def state(self) -> ListenerState:
        """The current state."""
        return self._state

    @property
    def lag_seconds(self) -> float | None:
        """Age of the last heartbeat row when it came back; None before the first."""
        return self._heartbeat.lag_seconds

    @property
    def heard_at(self) -> float | None:
        """When a heartbeat row last came back (monotonic seconds); None before the first."""
        return self._heartbeat.seen_at

    def whole_since(self) -> float | None:
        """Since when no connection has failed visibly (monotonic seconds); None while none is live.

        A connection discarded as stale does not count as failed: changes that it did not deliver are lost.
        """
        return self._whole_since

    async def run(self) -> None:
        """Listen until `stop`."""
        async with anyio.create_task_group() as tasks:
            self._act(self._first_actions, tasks)
            while self._state.name != "stopped":
                self._liveness.tick("listener")
                await self._wakeup.wait(self._seconds_to_wait())
                self._take_inputs(tasks)
            self._stopped.set()
            tasks.cancel_scope.deadline = anyio.current_time() + _CLOSE_SECONDS
        self._liveness.ended("listener")

    def stop(self) -> None:
        """End `run`: close the connection and take no more changes."""
        self._tell(Stop())

    def renew(self) -> None:
        """Open another connection; a live one stays in use until its successor is live."""
        self._tell(Renew())

    def _tell(self, event: Input, source: ChangeStream | None = None) -> None:
        self._inputs.append((source, event))
        self._wakeup.set()

    def _seconds_to_wait(self) -> float:
        if self._inputs:
            return 0.0
        deadlines = [at for at in (self._state.deadline, self._beat_due_at()) if at is not None]
        return min([TICK_SECONDS, *(max(0.0, at - monotonic()) for at in deadlines)])

    def _beat_due_at(self) -> float | None:
        return self._heartbeat.due_at if self._state.name == "live" else None

    def _take_inputs(self, tasks: TaskGroup) -> None:
        events, self._inputs = [*self._inputs, (None, Tick())], []
        due_at = self._beat_due_at()
        if due_at is not None and monotonic() >= due_at:
            events.append((None, BeatOverdue()))
        for source, heard in events:
            event = self._understand(source, heard)
            if event is None:
                continue
            jitter = random.random()  # noqa: S311 - spreads load, keeps no secret
            old, (self._state, actions) = self._state, transition(self._state, event, monotonic(), jitter)
            self._report(old, self._state)
            self._act(actions, tasks)

    def _understand(self, source: ChangeStream | None, event: Input) -> Input | None:
        if source is None or source is self._stream:
            return event
        if source is self._successor:
            match event:
                case Subscribed():
                    return SuccessorSubscribed()
                case Failed():
                    return SuccessorFailed(event)
        return None

    def _act(self, actions: list[Action], tasks: TaskGroup) -> None:
        for action in actions:
            match action:
                case Action.OPEN:
                    self._open(tasks)
                case Action.CLOSE:
                    self._close(tasks)
                    self._close_successor(tasks)
                case Action.OPEN_SUCCESSOR:
                    self._open_successor(tasks)
                case Action.CLOSE_SUCCESSOR:
                    self._close_successor(tasks)
                case Action.PROMOTE_SUCCESSOR:
                    self._promote_successor(tasks)
                case Action.ASK_FOR_SWEEP:
                    self._report_gap("reconnect")

    def _open(self, tasks: TaskGroup) -> None:
        self._stream = self._new_stream()
        tasks.start_soon(self._stream.open)

    def _close(self, tasks: TaskGroup) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon()
            tasks.start_soon(stream.close)

    def _open_successor(self, tasks: TaskGroup) -> None:
        self._successor = self._new_stream()
        tasks.start_soon(self._successor.open)

    def _close_successor(self, tasks: TaskGroup) -> None:
        successor, self._successor = self._successor, None
        if successor is not None:
            successor.abandon()
            tasks.start_soon(successor.close)

    def _promote_successor(self, tasks: TaskGroup) -> None:
        old, self._stream, self._successor = self._stream, self._successor, None
        self._metrics.reconnects.labels("renewal").inc()
        log.info("stream_renewed")
        if old is not None:
            tasks.start_soon(self._close_later, old)

    async def _close_later(self, old: ChangeStream) -> None:
        with anyio.move_on_after(self._linger_seconds):
            await self._stopped.wait()
        await old.close()

    def _new_stream(self) -> ChangeStream:
        stream = ChangeStream(
            self._url,
            self._api_key,
            self._daemon_id,
            on_change=self._receive,
            on_input=lambda event: self._tell(event, stream),
            on_unreadable=self._miss_a_change,
        )
        return stream

    def _receive(self, data: Mapping[str, object]) -> None:
        # Called from the client's task, which an exception would end silently.
        try:
            hint = read_change(data)
            self._metrics.events.labels(hint.table, hint.operation).inc()
            self._metrics.last_seen.set(utc_now().timestamp())
            if hint.table == HEARTBEATS:
                self._see_heartbeat(hint)
            else:
                self._on_hint(self._memory.complete(hint))
        except MalformedChangeError as error:
            self._miss_a_change(str(error))
        except Exception:
            log.exception("change_handling_failed")
            self._report_gap("event")

    def _see_heartbeat(self, hint: Hint) -> None:
        # Without `beat_at` it is a DELETE. Older servers do not filter those, so it may be any daemon's.
        if hint.beat_at is not None:
            now = self._database_clock.now() or utc_now()
            lag_seconds = max(0.0, (now - hint.beat_at).total_seconds())
            self._heartbeat.seen(monotonic(), lag_seconds)
            self._metrics.lag.set(lag_seconds)
            self._tell(BeatSeen())

    def _miss_a_change(self, problem: str = "the frame could not be read") -> None:
        self._metrics.malformed_events.inc()
        if monotonic() >= self._misses_logged_until:
            log.warning("change_malformed", error=problem, suppressed=self._misses_unlogged)
            self._misses_logged_until, self._misses_unlogged = monotonic() + MISSES_LOGGED_SECONDS, 0
        else:
            self._misses_unlogged += 1
        self._report_gap("event")

    def _report_gap(self, trigger: Trigger) -> None:
        self._memory.clear()
        self._on_gap(trigger)

    def _report(self, old: ListenerState, new: ListenerState) -> None:
        if old.name == new.name:
            if new.last_failure is not None and new.last_failure is not old.last_failure:
                failure = new.last_failure
                log.warning("stream_renewal_failed", reason=failure.reason, error=failure.detail)
                self._doubt_key(failure)
            return
        self._metrics.set_state(new.name)
        if new.name == "live":
            self._heartbeat.connected(new.since)
        match new.name:
            case "live":
                self._whole_since = self._whole_since or monotonic()
                log.info("stream_state_changed", state=new.name)
            case "stale":
                self._report_failure(new, Failed("stale", NO_BEAT))
            case "backing_off" if new.last_failure is not None:
                if new.last_failure.reason != "stale":
                    self._whole_since = None
                self._report_failure(new, new.last_failure)
            case _:
                log.info("stream_state_changed", state=new.name)

    def _doubt_key(self, failure: Failed) -> None:
        # A call to the database tests the key; this only lets the next connection use a newer one.
        if failure.reason in _DOUBTFUL:
            self._api_key.reload()

    def _report_failure(self, state: ListenerState, failure: Failed) -> None:
        self._metrics.reconnects.labels(failure.reason).inc()
        self._doubt_key(failure)
        log.warning(
            "stream_state_changed",
            state=state.name,
            reason=failure.reason,
            error=failure.detail,
            retry_in_seconds=round(max(0.0, (state.deadline or 0.0) - monotonic()), 2),
        )
