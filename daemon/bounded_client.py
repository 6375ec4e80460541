"""An HTTP client that gives up on an answer that grows too large, or does not end.

An answer is held in memory as a whole before it is parsed, and some kilobytes of gzip can become gigabytes.
So it is unpacked here, up to the limit: httpx unpacks whatever one read of the socket brings at once, which
can be 60 MiB. Pages of our functions and answers of Inngest are far below the limit. httpx's own time-outs
are for each read, so an answer that arrives byte by byte never meets one.
"""

from __future__ import annotations

import ssl
import zlib
from functools import cache
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpx

from priorityd.core.errors import TransientError

MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
_PIECE_BYTES: Final = 1024 * 1024
_PACKED: Final = ("gzip", "deflate")
_OF_THE_WIRE: Final = ("content-encoding", "content-length", "transfer-encoding")


@cache
def tls_context() -> ssl.SSLContext:
    """The TLS context of all clients. Each would read the certificate authorities, which takes some 50 ms."""
    return httpx.create_ssl_context()


class BoundedClient(httpx.AsyncClient):
    """See the module's docstring. `total_seconds` is for a request and its answer as a whole.

    Raises `TransientError` for an answer of more than `MAX_ANSWER_BYTES`, whatever its status.
    """

    def __init__(self, *, total_seconds: float | None = None, **options: Any) -> None:
        super().__init__(verify=tls_context(), **options)
        self.headers["Accept-Encoding"] = ", ".join(_PACKED)
        self._total_seconds = total_seconds

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """As httpx does, within the limits; what is streamed is left to the caller."""
        if stream:
            return await super().send(request, stream=True, **options)
        try:
            with anyio.fail_after(self._total_seconds):
                return await _whole(await super().send(request, stream=True, **options))
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time", request=request) from None


async def _whole(response: httpx.Response) -> httpx.Response:
    """The same, read to its end."""
    try:
        content = await _read(response)
    finally:
        await response.aclose()
    return httpx.Response(
        response.status_code,
        headers=[each for each in response.headers.raw if not _is_of_the_wire(each[0])],
        content=content,
        request=response.request,
        extensions=response.extensions,
        history=response.history,
    )


async def _read(response: httpx.Response) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in (*_PACKED, "identity"):
        raise httpx.DecodingError(f"unknown encoding {encoding:.40}", request=response.request)
    # It recognises both formats.
    unpacked = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in _PACKED else None
    content, received = bytearray(), 0
    try:
        async for part in response.aiter_raw():
            received += len(part)
            if unpacked is None:
                content += part
            else:
                await _unpack(unpacked, part, content)
            if max(received, len(content)) > MAX_ANSWER_BYTES:
                size = MAX_ANSWER_BYTES // 1024 // 1024
                raise TransientError(f"gave up on an answer of more than {size} MiB", reason="bad_answer")
    except zlib.error as error:
        raise httpx.DecodingError(str(error), request=response.request) from None
    if content and unpacked and not unpacked.eof:
        raise httpx.DecodingError("the compressed answer ends early", request=response.request)
    return bytes(content)


async def _unpack(unpacking: zlib._Decompress, part: bytes, content: bytearray) -> None:
    """Append what is packed in `part`, up to just above the limit; others take their turns meanwhile."""
    # After its end, zlib would keep whatever comes.
    while not unpacking.eof and len(content) <= MAX_ANSWER_BYTES:
        piece = unpacking.decompress(part, _PIECE_BYTES)
        content += piece
        part = unpacking.unconsumed_tail
        if not part and len(piece) < _PIECE_BYTES:
            return
        await anyio.lowlevel.checkpoint()


def _is_of_the_wire(name: bytes) -> bool:
    return name.decode("ascii", "replace").lower() in _OF_THE_WIRE
