"""A raw Phoenix client: it sends what a test wants to send and keeps what comes, in order."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed

from tests.support.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psycopg

    from tests.support.servers import Servers

Frame = dict[str, Any]


class Client:
    """One socket, protocol version 1.0.0 or 2.0.0; frames are given as objects in both."""

    def __init__(self, websocket: ClientConnection, version: str) -> None:
        self.websocket = websocket
        self._version = version
        self._ref = 0

    async def send(self, topic: str, event: str, payload: Any, join_ref: str | None = None) -> str:
        """Send a message and return its ref."""
        self._ref += 1
        await self.send_as(str(self._ref), topic, event, payload, join_ref)
        return str(self._ref)

    async def send_as(self, ref: str, topic: str, event: str, payload: Any, join_ref: str | None) -> None:
        """Send a message with this ref."""
        frame = {"topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": join_ref}
        if self._version == "2.0.0":
            await self.websocket.send(json.dumps([join_ref, ref, topic, event, payload]))
        else:
            await self.websocket.send(json.dumps(frame))

    async def join(self, *bindings: Frame, topic: str = "realtime:wr", token: str | None = None) -> str:
        """Ask for a channel with these bindings; the ref of the join is its `join_ref`."""
        config: Frame = {
            "broadcast": None,
            "presence": {"key": "", "enabled": False},
            "private": False,
            "postgres_changes": list(bindings),
        }
        payload = {"config": config} | ({"access_token": token} if token is not None else {})
        return await self.send(topic, "phx_join", payload, str(self._ref + 1))

    async def join_live(self, *bindings: Frame, **options: Any) -> list[Frame]:
        """Join, and return the frames up to the `system` ok, which is the last of them."""
        await self.join(*bindings, **options)
        return await self.until(is_live)

    async def receive(self) -> Frame:
        """The next frame."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return self.parse(await self.websocket.recv(decode=True))

    def parse(self, text: str | bytes) -> Frame:
        """A frame as an object, whatever the version."""
        frame = json.loads(text)
        if self._version == "2.0.0":
            return dict(zip(("join_ref", "ref", "topic", "event", "payload"), frame, strict=True))
        assert isinstance(frame, dict)
        return frame

    async def until(self, wanted: Any) -> list[Frame]:
        """The frames up to and with the first that is wanted."""
        frames = [await self.receive()]
        while not wanted(frames[-1]):
            frames.append(await self.receive())
        return frames

    async def change(self) -> Frame:
        """The `data` of the next change."""
        frame = (await self.until(lambda frame: frame["event"] == "postgres_changes"))[-1]
        data = frame["payload"]["data"]
        assert isinstance(data, dict)
        return data

    async def sync(self) -> list[Frame]:
        """What comes before the answer to a heartbeat that is sent now."""
        ref = await self.send("phoenix", "heartbeat", {})
        return (await self.until(lambda frame: frame["topic"] == "phoenix" and frame["ref"] == ref))[:-1]

    async def closed(self) -> int | None:
        """Read until the server closes; its code, or None if it just went away."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            with suppress(ConnectionClosed):
                while True:
                    await self.websocket.recv()
        return self.websocket.close_code


def is_live(frame: Frame) -> bool:
    """Whether this is the `system` message that says that changes flow."""
    return (
        frame["event"] == "system"
        and frame["payload"]["extension"] == "postgres_changes"
        and frame["payload"]["status"] == "ok"
    )


def binding(table: str = "workspace_repositories", event: str = "*", **more: str) -> Frame:
    """A binding as the clients send it."""
    return {"event": event, "schema": "public", "table": table} | more


def socket_url(sandbox: Servers, key: str | None = None, version: str = "1.0.0") -> str:
    """The address of the WebSocket; the key is service_role's unless another is given."""
    apikey = sandbox.service_role_key if key is None else key
    return f"{sandbox.url.replace('http', 'ws', 1)}/realtime/v1/websocket?apikey={apikey}&vsn={version}"


@asynccontextmanager
async def connect(sandbox: Servers, key: str | None = None, version: str = "1.0.0") -> AsyncIterator[Client]:
    """A client with an open socket."""
    # Uncompressed, so that a test can say how much it takes to fill what lies between the two ends.
    url = socket_url(sandbox, key, version)
    async with open_websocket(url, max_size=None, compression=None) as websocket:
        yield Client(websocket, version)


def notes(frames: list[Frame]) -> list[str]:
    """The notes of the inserted memberships among these frames."""
    return [f["payload"]["data"]["record"]["notes"] for f in frames if f["event"] == "postgres_changes"]


def add_membership(session: psycopg.Connection[object], note: str) -> None:
    """Insert a row that subscribers of workspace_repositories receive."""
    session.execute(
        """with w as (insert into workspaces default values returning id),
        r as (insert into repositories default values returning id)
        insert into workspace_repositories (workspace_id, repository_id, notes)
        select w.id, r.id, %s from w, r""",
        [note],
    )


async def until_published(session: psycopg.Connection[Any], client: Client) -> None:
    """Until the server has sent or dropped everything that is committed; the session is in autocommit."""
    for _ in range(2):
        # Polls follow each other, so by the time of another one what this one took has been dealt with.
        session.execute("select pg_logical_emit_message(true, 'priorityd', 'next')")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not _is_confirmed(session):
                await client.sync()


def _is_confirmed(session: psycopg.Connection[Any]) -> bool:
    """Whether the slot has moved beyond everything that was committed before."""
    statement = "select bool_and(confirmed_flush_lsn >= %s::pg_lsn) from pg_replication_slots"
    (end,) = session.execute("select pg_current_wal_lsn()").fetchone() or (None,)
    (confirmed,) = session.execute(statement, [end]).fetchone() or (False,)
    return bool(confirmed)
