"""One connection to Supabase Realtime, used once and then discarded.

The `realtime` package keeps connections alive in its own tasks, which give up after some attempts and never
check heartbeat replies; a callback that raises kills its listening task. So it is used for one connection at
a time, with its reconnecting disabled: the listener decides when to open the next one, and the callbacks here
only pass events on and never raise.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import anyio
import structlog
from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates
from realtime.types import RealtimePostgresChangesListenEvent as ListenEvent
from websockets.exceptions import ConnectionClosed, InvalidStatus

from priorityd.core.stream.hints import HEARTBEATS, TRACKED_REPOSITORIES, WORKSPACE_REPOSITORIES
from priorityd.core.stream.listener_state import (
    CONNECT_TIMEOUT_SECONDS,
    Failed,
    Input,
    Opened,
    ReconnectReason,
    Subscribed,
)
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.logs import redact
from priorityd.daemon.stream.realtime_messages import read_messages_by_event

log = structlog.stdlib.get_logger()

_TOPIC: Final = "priorityd"
_KEY_STATUSES: Final = (401, 403)
_CLIENT_LOGGER: Final = logging.getLogger("realtime._async.client")
_MESSAGE_FIELDS: Final = ("message", "error", "reason")
_UNREADABLE: Final = "Unrecognized message format"

OnChange = Callable[[Mapping[str, object]], None]
OnInput = Callable[[Input], None]


class ChangeStream:
    """A socket and its one channel. Their events go to `on_input`, rows go to `on_change`."""

    def __init__(
        self,
        url: str,
        api_key: ApiKey,
        daemon_id: UUID,
        *,
        on_change: OnChange,
        on_input: OnInput,
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change = on_change
        self._on_input = on_input
        self._on_unreadable = on_unreadable
        self._key = api_key.api_key
        self._unreadable = _UnreadableFrames(self._handle_unreadable)
        self._joined = False
        self._abandoned = False
        self._opening = anyio.CancelScope()
        read_messages_by_event()
        self._client = AsyncRealtimeClient(
            f"{url}/realtime/v1",
            token=api_key.api_key,
            auto_reconnect=False,
            max_retries=1,
            timeout=int(CONNECT_TIMEOUT_SECONDS),
        )
        self._client.access_token = api_key.access_token
        self._channel = self._bind(daemon_id)

    async def open(self) -> None:
        """Connect and join. Never raises: failures are reported as events."""
        _CLIENT_LOGGER.addHandler(self._unreadable)
        with self._opening:
            try:
                await self._client.connect()
                self._tell(Opened())
                await self._channel.subscribe(self._on_subscribe)
            except Exception as error:  # noqa: BLE001 - whatever the client raises means "not connected"
                self._tell(self._connect_failure(error))

    def abandon(self) -> None:
        """Ignore this connection from now on; it can be closed later."""
        self._abandoned = True
        self._opening.cancel()
        _CLIENT_LOGGER.removeHandler(self._unreadable)

    async def close(self) -> None:
        """Close the socket; takes up to about ten seconds if the peer is gone."""
        self.abandon()
        self._channel.rejoin_timer.reset()
        try:
            await self._client.close()
        except Exception as error:  # noqa: BLE001 - it is discarded in any case
            log.debug("stream_close_failed", error=repr(error))

    def _bind(self, daemon_id: UUID) -> AsyncRealtimeChannel:
        channel = self._client.channel(_TOPIC)
        changes = self._handle_change
        channel.on_postgres_changes(ListenEvent.All, changes, table=WORKSPACE_REPOSITORIES, schema="public")
        channel.on_postgres_changes(ListenEvent.Insert, changes, table=TRACKED_REPOSITORIES, schema="public")
        channel.on_postgres_changes(
            ListenEvent.All, changes, table=HEARTBEATS, schema="public", filter=f"daemon_id=eq.{daemon_id}"
        )
        channel.on_system(self._on_system)
        return channel

    def _handle_change(self, payload: Any) -> None:
        if not self._abandoned:
            self._on_change(payload["data"])

    def _on_system(self, payload: Any) -> None:
        # Other extensions send `system` ok, too; only this one means that rows flow.
        if payload.extension == "postgres_changes":
            self._tell(Subscribed())

    def _on_subscribe(self, status: RealtimeSubscribeStates, error: Exception | None) -> None:
        match status:
            case RealtimeSubscribeStates.SUBSCRIBED:
                self._joined = True
            case RealtimeSubscribeStates.TIMED_OUT:
                self._tell(Failed("join_timeout", "the join was not answered"))
            case RealtimeSubscribeStates.CLOSED:
                self._tell(Failed("closed", "the server closed the channel"))
            case RealtimeSubscribeStates.CHANNEL_ERROR:
                self._tell(self._channel_failure(error))

    def _channel_failure(self, error: Exception | None) -> Failed:
        if isinstance(error, ConnectionClosed):
            return Failed("closed", self._without_key(_closed(error)))
        reason: ReconnectReason = "subscription_error" if self._joined else "join_failed"
        return Failed(reason, self._without_key(_message_in(str(error)) or str(error)))

    def _connect_failure(self, error: Exception) -> Failed:
        if isinstance(error, InvalidStatus):
            status, message = error.response.status_code, _message_in(error.response.body)
            detail = f"the WebSocket handshake was answered with {status}"
            detail += f": {message}" if message else ""
            return Failed(
                "refused" if status in _KEY_STATUSES else "connect_failed", self._without_key(detail)
            )
        return Failed("connect_failed", self._without_key(f"{type(error).__name__}: {error}"))

    def _without_key(self, text: str) -> str:
        # The key is part of the socket's URL, which error texts often quote.
        return redact(text.replace(self._key, "[redacted]"))[:500]

    def _handle_unreadable(self) -> None:
        if not self._abandoned:
            self._on_unreadable()

    def _tell(self, event: Input) -> None:
        if not self._abandoned:
            self._on_input(event)


def _closed(error: ConnectionClosed) -> str:
    """How a connection ended: closed by the server, by this side because of what came, or broken."""
    began_there = error.rcvd is not None and error.rcvd_then_sent is not False
    who, frame = ("the server closed", error.rcvd) if began_there else ("this side gave up", error.sent)
    if frame is None:
        return "the connection broke off, without a close frame"
    return f"{who} the connection ({frame.code}{f': {frame.reason}' if frame.reason else ''})"


def _message_in(body: str | bytes | None) -> str | None:
    """The message in an answer; the gateway, the handshake, joins and channels use different fields for it.

    None if there is none.
    """
    try:
        found = json.loads(body or "")
    except (ValueError, RecursionError):
        return None
    texts = [found.get(name) for name in _MESSAGE_FIELDS] if isinstance(found, dict) else []
    return next((text for text in texts if isinstance(text, str)), None)


class _UnreadableFrames(logging.Handler):
    """Notices frames that the client could not read, which it only logs and drops.

    The real server sends such a frame when the key's role may no longer read a table ("Error 401:
    Unauthorized", without a commit time). Without this, those changes would be lost silently.
    """

    def __init__(self, on_unreadable: Callable[[], None]) -> None:
        super().__init__(logging.ERROR)
        self._on_unreadable = on_unreadable

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the client's logger."""
        if str(record.msg).startswith(_UNREADABLE):
            self._on_unreadable()
