"""Nonsense in the change stream."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID, uuid4

import anyio
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from priorityd.core.heartbeat import Heartbeat
from priorityd.core.stream.hints import Hint
from priorityd.core.stream.listener_state import RECONNECT_REASONS
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.database_clock import DatabaseClock
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.metrics import PREFIX
from priorityd.daemon.status.metrics import Metrics
from priorityd.daemon.stream.listener import Listener
from priorityd.daemon.stream.timings import Timings
from tests.chaos.fuzz.nonsense import Mixture
from tests.chaos.fuzz.odd_frames import ENDING_KINDS, FRAMES, RAW_KINDS, TOPIC, change
from tests.chaos.fuzz.outcome import Outcome

_BATCH: Final = 1000
_REPEAT_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 10.0
_DEAF_SECONDS: Final = 60.0


async def send_frames(count: int, chance: random.Random, outcome: Outcome) -> None:
    """Send this number of frames to a listener; it must receive a change after every thousand of them."""
    source, metrics = _Source(count, chance), Metrics()
    async with source.serving() as url, anyio.create_task_group() as tasks:
        listener = Listener(
            url,
            ApiKey("key"),
            uuid4(),
            Heartbeat(),
            DatabaseClock(),
            on_hint=source.hear,
            on_gap=lambda _: None,
            metrics=metrics.stream,
            liveness=Liveness(),
            timings=Timings(backoff_max_seconds=0.02),
        )
        tasks.start_soon(_run, listener, outcome)
        await source.finished(outcome)
        listener.stop()
    outcome.frames, outcome.frames_total = source.mixture.counts, count
    outcome.changes_heard = source.heard
    outcome.malformed_events = int(_value(metrics, "malformed_events_total"))
    outcome.reconnects = {
        reason: found
        for reason in RECONNECT_REASONS
        if (found := int(_value(metrics, "reconnects_total", reason=reason)))
    }


async def _run(listener: Listener, outcome: Outcome) -> None:
    try:
        await listener.run()
    except Exception as error:  # noqa: BLE001 - any is a finding
        outcome.crashed(error)


def _value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(PREFIX + name, labels) or 0.0


class _Source:
    """The server: correct answers to joins, then batches of nonsense, each followed by a change.

    After a connection has ended it continues where it was, first with the change that was not received.
    """

    def __init__(self, count: int, chance: random.Random) -> None:
        self._left = count
        self.mixture = Mixture(FRAMES, chance)
        self.heard = 0
        self._wanted: UUID | None = None
        self._was_heard = asyncio.Event()
        self._progressed = asyncio.Event()
        self._done = asyncio.Event()

    def hear(self, hint: Hint) -> None:
        """What the listener passes on."""
        if self._wanted in hint.repository_ids:
            self._was_heard.set()

    async def finished(self, outcome: Outcome) -> None:
        """Return when everything was sent and heard, or the listener is deaf."""
        while not self._done.is_set():
            self._progressed.clear()
            with anyio.move_on_after(_DEAF_SECONDS) as waiting:
                await self._progressed.wait()
            if waiting.cancelled_caught:
                outcome.crashed(f"deaf with {self._left} frames left")
                return

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its URL, for the length of the block."""
        async with serve(self._serve, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
            yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

    async def _serve(self, connection: ServerConnection) -> None:
        try:
            while True:
                message = json.loads(await connection.recv())
                if message["event"] == "phx_join":
                    break
            await self._answer_join(connection, message)
            await self._send_all(connection)
            await connection.wait_closed()
        except ConnectionClosed:
            return

    async def _answer_join(self, connection: ServerConnection, message: dict) -> None:  # type: ignore[type-arg]
        bindings = message["payload"]["config"]["postgres_changes"]
        with_ids = [binding | {"id": number} for number, binding in enumerate(bindings, 1)]
        joined = {"status": "ok", "response": {"postgres_changes": with_ids}}
        live = {
            "channel": "priorityd",
            "extension": "postgres_changes",
            "message": "Subscribed to PostgreSQL",
            "status": "ok",
        }
        for event, payload, ref in (("phx_reply", joined, message["ref"]), ("system", live, None)):
            frame = {"event": event, "topic": TOPIC, "payload": payload, "ref": ref}
            await connection.send(json.dumps(frame))

    async def _send_all(self, connection: ServerConnection) -> None:
        while self._left or self._wanted:
            if self._wanted is None:
                await self._send_batch(connection)
            await connection.send(json.dumps(change(self._wanted or uuid4())))
            with anyio.move_on_after(_REPEAT_SECONDS):
                await self._was_heard.wait()
                self.heard += 1
                self._wanted = None
                self._progressed.set()
        self._done.set()
        self._progressed.set()

    async def _send_batch(self, connection: ServerConnection) -> None:
        # Chosen first, so that it is sent even if the connection ends half-way.
        self._was_heard.clear()
        self._wanted = uuid4()
        for _ in range(min(_BATCH, self._left)):
            self._left -= 1
            kind, frame = self.mixture.draw()
            if kind in RAW_KINDS:
                connection.transport.write(frame)
            else:
                await connection.send(frame)
            if kind in ENDING_KINDS:
                # What is sent after it would be counted but never read.
                with anyio.move_on_after(_CLOSE_SECONDS):
                    await connection.wait_closed()
