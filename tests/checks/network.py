"""What may stand before a project, or in its place."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import trustme

_HOST = "127.0.0.1"
_PIECE_BYTES = 65536

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Way = Callable[[str], int | bytes]
"""By a request's path: the port to which the connection is handed on, or what is answered."""


def answer(status: int, body: str = "", **headers: str) -> bytes:
    """An answer of HTTP; the underscore in a header's name is a hyphen."""
    lines = [f"HTTP/1.1 {status} Some words", f"Content-Length: {len(body.encode())}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@asynccontextmanager
async def gateway(way: Way) -> AsyncIterator[int]:
    """A server that looks at the path of a connection's first request; its port."""

    async def handle(reader: Reader, writer: Writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        to = way(head.split(maxsplit=2)[1].decode())
        if isinstance(to, bytes):
            writer.write(to)
            await writer.drain()
            return
        upstream = await asyncio.open_connection(_HOST, to)
        upstream[1].write(head)
        await _join((reader, writer), upstream)

    async with _serve(handle) as port:
        yield port


@asynccontextmanager
async def projects_of(names: Mapping[str, int], directory: Path) -> AsyncIterator[dict[str, Any]]:
    """The internet, with these names and no others, served with TLS by these ports; how to get there."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    bundle = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))

    async def connect(reader: Reader, writer: Writer) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).decode().split(maxsplit=2)[1]
        port = names.get(target.rpartition(":")[0])
        if port is None:
            writer.write(answer(502))
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        await writer.start_tls(context)
        await _join((reader, writer), await asyncio.open_connection(_HOST, port))

    async with _serve(connect) as port:
        yield {"HTTPS_PROXY": f"http://{_HOST}:{port}", "SSL_CERT_FILE": bundle}


@asynccontextmanager
async def _serve(handle: Callable[[Reader, Writer], object]) -> AsyncIterator[int]:
    async def connection(reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await handle(reader, writer)  # type: ignore[misc]
        writer.close()

    server = await asyncio.start_server(connection, _HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _join(one: tuple[Reader, Writer], other: tuple[Reader, Writer]) -> None:
    await asyncio.gather(_copy(one[0], other[1]), _copy(other[0], one[1]))


async def _copy(reader: Reader, writer: Writer) -> None:
    try:
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()
