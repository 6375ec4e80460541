"""The Realtime side of the sandbox: the WebSocket route and what runs behind it.

A handshake can be refused by the gateway, which looks the API key up, or by Realtime, which checks the token
that the key stands for and refuses it after a delay.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from priorityd.daemon.sandbox.keys import InvalidToken, Keys
from priorityd.daemon.sandbox.realtime.protocol import OBJECTS, VERSIONS
from priorityd.daemon.sandbox.realtime.refusals import at_handshake
from priorityd.daemon.sandbox.realtime.replication import Replication
from priorityd.daemon.sandbox.realtime.socket import Socket
from priorityd.daemon.sandbox.realtime.subscriptions import Subscriptions

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from priorityd.daemon.sandbox.faults import Faults
    from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings

_DISABLED = "Realtime was disabled for this tenant"
_UNKNOWN_KEY = "Invalid authentication credentials"


class Realtime:
    """Accepts sockets; changes flow to them while `run` runs."""

    def __init__(self, database_url: str, keys: Keys, faults: Faults, settings: RealtimeSettings) -> None:
        self._keys = keys
        self._faults = faults
        self._settings = settings
        self._subscriptions = Subscriptions(database_url)
        self._replication = Replication(database_url, self._subscriptions, faults, settings)
        self._sockets: set[Socket] = set()

    async def run(self) -> None:
        """Read the write-ahead log until cancelled."""
        await self._replication.run()

    def close_sockets(self, code: int) -> None:
        """Close every socket with this code."""
        for socket in self._sockets:
            socket.close(code)

    def end_channels(self) -> None:
        """End every channel as if it were over the quota of messages."""
        for socket in self._sockets:
            socket.overrun()

    def resubscribe(self, seconds: float) -> None:
        """Have no slot for this long, then make every channel subscribe again."""
        self._replication.lose_slot(seconds)

    async def endpoint(self, websocket: WebSocket) -> None:
        """`GET /realtime/v1/websocket?apikey=…&vsn=…`."""
        version = websocket.query_params.get("vsn", OBJECTS)
        key = websocket.query_params.get("apikey") or websocket.headers.get("apikey", "")
        token = self._keys.token_of(key)
        if token is None:
            await websocket.send_denial_response(JSONResponse({"message": _UNKNOWN_KEY}, 401))
            return
        refusal = self._refusal(token)
        if refusal is not None:
            await asyncio.sleep(self._settings.handshake_refusal_seconds)
            await websocket.send_denial_response(refusal)
            return
        if version not in VERSIONS:
            await websocket.close()  # before accept: the handshake is answered with 403
            return
        await websocket.accept()
        socket = Socket(websocket, version, token, self._keys, self._faults, self._settings)
        self._sockets.add(socket)
        try:
            await socket.run(self._subscriptions, self._replication)
        finally:
            self._sockets.discard(socket)

    def _refusal(self, token: str) -> JSONResponse | None:
        """Realtime's own refusal of the token, None if it accepts it."""
        if self._faults.is_on("disable"):
            return JSONResponse({"error": _DISABLED}, 403)
        try:
            self._keys.verify(token)
        except InvalidToken as flaw:
            return JSONResponse({"error": at_handshake(flaw)}, 401)
        return None
