"""One WebSocket connection: its channels, and a bounded queue between them and the network.

Senders queue frames without waiting, so a client that does not read delays only itself; one that falls too
far behind is disconnected.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from starlette.websockets import WebSocketDisconnect

from priorityd.daemon.sandbox.keys import InvalidToken, Keys, is_opaque
from priorityd.daemon.sandbox.realtime.bindings import read_bindings, wants_presence
from priorityd.daemon.sandbox.realtime.channel import PRIVATE_ONLY, Channel
from priorityd.daemon.sandbox.realtime.protocol import (
    ARRAYS,
    Framer,
    MalformedFrame,
    Message,
    decode,
    to_json,
)
from priorityd.daemon.sandbox.realtime.refusals import at_join

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from priorityd.daemon.sandbox.faults import Faults
    from priorityd.daemon.sandbox.realtime.replication import Replication
    from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings
    from priorityd.daemon.sandbox.realtime.subscriptions import Subscriptions

_TOO_MANY_JOINS = 1000
_MOST_QUEUED_CHARACTERS = 64 * 1024 * 1024


class Socket:
    """A client's connection, already accepted; `token` is that of the key with which it was opened."""

    def __init__(
        self,
        websocket: WebSocket,
        version: str,
        token: str,
        keys: Keys,
        faults: Faults,
        settings: RealtimeSettings,
    ) -> None:
        self._websocket = websocket
        self._version = version
        self._token = token
        self._keys = keys
        self._faults = faults
        self._settings = settings
        self._channels: dict[str, Channel] = {}
        self._queue: deque[str] = deque()
        self._queued_characters = 0
        self._close_code: int | None = None
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def close(self, code: int) -> None:
        """Close the connection with this code, after the frame that is being written."""
        self._close_code = self._close_code or code
        self._wake.set()

    def overrun(self) -> int:
        """End its channels like a server over its quota of messages, and return how many there were."""
        open_channels = [channel for channel in self._channels.values() if not channel.is_over]
        for channel in open_channels:
            channel.overrun()
        return len(open_channels)

    async def run(self, subscriptions: Subscriptions, replication: Replication) -> None:
        """Serve the client until either side ends it."""
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read(tasks, subscriptions, replication))
            writer = self._writer = tasks.create_task(self._write())
            try:
                await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for channel in self._channels.values():
                    channel.drop()
                reader.cancel()
                writer.cancel()

    def _send(self, frame: str) -> None:
        self._queue.append(frame)
        self._queued_characters += len(frame)
        if self._queued_characters > _MOST_QUEUED_CHARACTERS and self._writer is not None:
            # A closing handshake would have to wait for the client as well.
            self._writer.cancel()
        self._wake.set()

    async def _write(self) -> None:
        try:
            while self._close_code is None:
                while self._queue and self._close_code is None:
                    frame = self._queue.popleft()
                    self._queued_characters -= len(frame)
                    await self._websocket.send_text(frame)
                self._wake.clear()
                if self._close_code is None:
                    await self._wake.wait()
            await self._websocket.close(self._close_code)
        except WebSocketDisconnect:
            return

    async def _read(
        self, tasks: asyncio.TaskGroup, subscriptions: Subscriptions, replication: Replication
    ) -> None:
        while True:
            frame = await self._websocket.receive()
            if frame["type"] == "websocket.disconnect":
                return
            text = frame.get("text")
            if text is None and self._version == ARRAYS:
                continue  # binary frames are broadcasts, which the sandbox does not serve
            try:
                message = decode(text or "", self._version)
            except MalformedFrame:
                continue
            self._handle(message, tasks, subscriptions, replication)

    def _handle(
        self,
        message: Message,
        tasks: asyncio.TaskGroup,
        subscriptions: Subscriptions,
        replication: Replication,
    ) -> None:
        channel = self._channel(message.topic)
        match message.event:
            case "heartbeat" if message.topic == "phoenix":
                self._send(self._framer(message, None).reply(message.ref, "ok", "{}"))
            case "phx_join" if message.topic.startswith("realtime:"):
                self._join(message, tasks, subscriptions, replication)
            case "phx_leave":
                self._leave(message, channel)
            case "access_token" if channel and isinstance(message.payload, dict):
                channel.change_token(message.payload.get("access_token"), self._keys)
            case _ if channel is None:
                self._reply_error(message, "unmatched topic")

    def _join(
        self,
        message: Message,
        tasks: asyncio.TaskGroup,
        subscriptions: Subscriptions,
        replication: Replication,
    ) -> None:
        if self._faults.is_on("refuse"):
            return
        if self._faults.is_on("limit"):
            # The reply has the reason, but would come after the socket's end.
            self.close(_TOO_MANY_JOINS)
            return
        if self._faults.is_on("private"):
            self._reply_error(message, PRIVATE_ONLY)
            return
        payload = message.payload if isinstance(message.payload, dict) else {}
        token = payload.get("access_token") or self._token
        if is_opaque(str(token)):
            token = self._token
        try:
            claims = self._keys.verify(str(token))
        except InvalidToken as flaw:
            tasks.create_task(self._refuse_later(message, at_join(flaw)))
            return
        old = self._displace(message.topic)
        config = payload.get("config")
        channel = Channel(
            self._framer(message, message.join_ref),
            read_bindings(config),
            str(token),
            claims,
            self._send,
            self._faults,
            has_presence=wants_presence(config),
            refusal_seconds=self._settings.join_refusal_seconds,
        )
        channel.start(tasks, message.ref, subscriptions, replication, old)
        self._channels[message.topic] = channel

    async def _refuse_later(self, message: Message, reason: str) -> None:
        await asyncio.sleep(self._settings.join_refusal_seconds)
        self._reply_error(message, reason)

    def _leave(self, message: Message, channel: Channel | None) -> None:
        if channel is None:
            self._send(self._framer(message, message.join_ref).reply(message.ref, "ok", "{}"))
        # A leave with another join_ref has lost a race with a new join; Phoenix ignores it.
        elif channel.join_ref == message.join_ref:
            channel.leave(message.ref)

    def _channel(self, topic: str) -> Channel | None:
        channel = self._channels.get(topic)
        return None if channel is None or channel.is_over else channel

    def _displace(self, topic: str) -> Channel | None:
        """End the topic's channel silently, and return it if it was still alive."""
        channel = self._channel(topic)
        if channel is not None:
            channel.drop()
        return channel

    def _reply_error(self, message: Message, reason: str) -> None:
        framer = self._framer(message, message.join_ref)
        self._send(framer.reply(message.ref, "error", to_json({"reason": reason})))

    def _framer(self, message: Message, join_ref: str | None) -> Framer:
        return Framer(self._version, message.topic, join_ref)
