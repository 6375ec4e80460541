"""A TCP proxy between the daemon and Supabase, on loopback, that misbehaves on request.

Several modes may be on at the same time, and each may be turned on several times: it ends when it has been
turned off as often.

- `refused`: nothing listens, and open connections are reset; the port stays reserved.
- `frozen`: bytes wait, and go on when the mode ends, as after packet loss in the network.
- `half_open`: bytes vanish silently both ways. Existing connections never work again, even after the mode has
  ended, as behind a router that forgot them; new ones work when the mode has ended.
- `stream_refused`: WebSockets are reset, including open ones; REST goes on.
- `slow`: every piece of data is delayed a little.
- `cut_before`: a REST request is reset before it reaches the server.
- `cut_after`: a REST request is reset after the server has processed it, before the answer.
- `truncated`: a REST answer ends half-way.
- `dripping`: a REST answer comes byte by byte, too slowly for any client; the rest comes when the mode ends.

While there are `canned` answers, REST requests get one of them and never reach the server; the connection is
closed after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal

Mode = Literal[
    "refused",
    "stream_refused",
    "frozen",
    "half_open",
    "slow",
    "cut_before",
    "cut_after",
    "truncated",
    "dripping",
]

_HOST = "127.0.0.1"
_PIECE_BYTES = 65536
_SLOW_SECONDS = 0.3
_DRIP_SECONDS = 0.5
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_STREAM_REQUEST = b"GET /realtime/"
_REST_REQUESTS = (b"POST /rest/", b"GET /rest/", b"HEAD /rest/")


@dataclass(eq=False)
class _Link:
    """One connection: the client's side and the server's. Data on a `lost` one vanishes."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    is_rest: bool = False
    is_stream: bool = False
    lost: bool = False

    def reset(self) -> None:
        for writer in (self.client, self.server):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
                )
            writer.transport.abort()


class Proxy:
    """See the module's docstring. Make one with `serve_proxy`."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._links: set[_Link] = set()
        self._carriers: set[asyncio.Task[None]] = set()
        self._modes: Counter[Mode] = Counter()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._listening: asyncio.Server | None = None
        self._changing = asyncio.Lock()
        # Bound as long as the proxy lives, so that nobody else takes the port while connections are refused.
        self._holder = _bound_socket(0)
        self.port: int = self._holder.getsockname()[1]
        self.canned: dict[str, bytes] = {}

    async def set(self, mode: Mode, *, on: bool) -> None:
        """Turn a mode on, or undo turning it on."""
        self._modes[mode] += 1 if on else -1
        (self._thawed.clear if self._is_on("frozen") or self._is_on("half_open") else self._thawed.set)()
        if mode == "stream_refused" and on:
            for link in [link for link in self._links if link.is_stream]:
                link.reset()
        if mode == "half_open" and on:
            for link in self._links:
                link.lost = True
        async with self._changing:
            if self._is_on("refused"):
                self._stop_listening()
                self.reset_all()
            elif self._listening is None:
                await self.listen()

    def _is_on(self, mode: Mode) -> bool:
        return self._modes[mode] > 0

    def reset_all(self) -> None:
        """End every connection with RST."""
        for link in list(self._links):
            link.reset()

    async def listen(self) -> None:
        """Accept connections."""
        self._listening = await asyncio.start_server(self._accept, sock=_bound_socket(self.port))

    async def close(self) -> None:
        """Accept nothing and end every connection."""
        self._stop_listening()
        self._modes.clear()
        self._thawed.set()
        self.reset_all()
        if self._carriers:
            await asyncio.wait(self._carriers)
        self._holder.close()

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection(_HOST, self._server_port)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, server)
        self._links.add(link)
        carrier = asyncio.current_task()
        assert carrier is not None
        self._carriers.add(carrier)
        carrier.add_done_callback(self._carriers.discard)
        try:
            await asyncio.gather(self._carry_requests(link, reader), self._carry_answers(link, answers))
        finally:
            self._links.discard(link)
            client.transport.abort()
            server.transport.abort()

    async def _carry_requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with _until_reset():
            while data := await reader.read(_PIECE_BYTES):
                link.is_rest = link.is_rest or data.startswith(_REST_REQUESTS)
                link.is_stream = link.is_stream or data.startswith(_STREAM_REQUEST)
                await self._hold_up()
                if link.lost:
                    continue
                if self._is_cut(link):
                    link.reset()
                elif link.is_rest and self.canned:
                    link.client.write(next(iter(self.canned.values())))
                    link.client.close()
                    link.lost = True
                else:
                    link.server.write(data)
                    await link.server.drain()
        link.server.transport.abort()

    def _is_cut(self, link: _Link) -> bool:
        """Whether its requests are to be reset."""
        stream = link.is_stream and self._is_on("stream_refused")
        return stream or (link.is_rest and self._is_on("cut_before"))

    async def _carry_answers(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with _until_reset():
            while data := await reader.read(_PIECE_BYTES):
                await self._hold_up()
                if link.lost:
                    continue
                if link.is_rest and self._is_on("cut_after"):
                    link.reset()
                elif link.is_rest and self._is_on("truncated"):
                    link.client.write(data[: len(data) // 2])
                    break
                else:
                    link.client.write(await self._drip(link, data))
                    await link.client.drain()
        if not link.lost:
            link.client.close()

    async def _hold_up(self) -> None:
        await self._thawed.wait()
        if self._is_on("slow"):
            await asyncio.sleep(_SLOW_SECONDS)

    async def _drip(self, link: _Link, data: bytes) -> bytes:
        """Send byte by byte while the mode is on; returns what is left."""
        while data and link.is_rest and self._is_on("dripping") and not link.client.is_closing():
            link.client.write(data[:1])
            data = data[1:]
            await asyncio.sleep(_DRIP_SECONDS)
        return data


@asynccontextmanager
async def serve_proxy(server_port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of the port, for the length of the block."""
    proxy = Proxy(server_port)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()


@contextmanager
def _until_reset() -> Iterator[None]:
    with contextlib.suppress(OSError):
        yield


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # This lets the holder and the listener share one port; nobody else can listen there without it.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_HOST, port))
    return bound
