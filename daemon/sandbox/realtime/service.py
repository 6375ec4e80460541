"""The Realtime side of the sandbox: the WebSocket route and what runs behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from priorityd.daemon.sandbox.keys import InvalidToken, Keys, is_opaque
from priorityd.daemon.sandbox.realtime.protocol import OBJECTS, VERSIONS
from priorityd.daemon.sandbox.realtime.replication import Replication
from priorityd.daemon.sandbox.realtime.socket import Socket
from priorityd.daemon.sandbox.realtime.subscriptions import Subscriptions

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from priorityd.daemon.sandbox.faults import Faults


class Realtime:
    """Accepts sockets and feeds them; `run` has to run for changes to flow."""

    def __init__(self, database_url: str, keys: Keys, faults: Faults) -> None:
        self._keys = keys
        self._faults = faults
        self._subscriptions = Subscriptions(database_url)
        self._replication = Replication(
            database_url,
            self._subscriptions,
            is_silent=lambda: faults.is_on("silence"),
            is_slotless=lambda: faults.is_on("slotless"),
        )
        self._sockets: set[Socket] = set()

    async def run(self) -> None:
        """Read the write-ahead log until cancelled."""
        await self._replication.run()

    def close_sockets(self, code: int) -> None:
        """Close every socket with this code."""
        for socket in self._sockets:
            socket.close(code)

    def end_channels(self) -> None:
        """End every channel as over the quota of messages."""
        for socket in self._sockets:
            socket.overrun()

    def resubscribe(self, seconds: float) -> None:
        """Be without a slot for this long, then say `system` ok once more."""
        self._replication.lose_slot(seconds)

    async def endpoint(self, websocket: WebSocket) -> None:
        """`GET /realtime/v1/websocket?apikey=…&vsn=…`; a refused key is a 403 at the handshake."""
        version = websocket.query_params.get("vsn", OBJECTS)
        token = websocket.query_params.get("apikey") or websocket.headers.get("x-api-key", "")
        if is_opaque(token):
            token = self._keys.token_of(token) or ""
        if version not in VERSIONS or not self._accepts(token):
            await websocket.close()  # before accept: the handshake is answered with 403
            return
        await websocket.accept()
        socket = Socket(websocket, version, token, self._keys, self._faults)
        self._sockets.add(socket)
        try:
            await socket.run(self._subscriptions, self._replication)
        finally:
            self._sockets.discard(socket)

    def _accepts(self, token: str) -> bool:
        try:
            self._keys.verify(token)
        except InvalidToken:
            return False
        return True
