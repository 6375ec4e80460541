"""Something else answers in Supabase's place, in every way: nothing is lost, and the daemon says why."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from priorityd.daemon.bounded_client import MAX_ANSWER_BYTES
from tests.support.daemon_process import eventually
from tests.support.proxy import serve_proxy
from tests.support.stack import NO_TIMER, Stack

FAILED = ("apply_failed", "sweep_failed")
"""A stream that is lost meanwhile hears of no change, and asks for a sweep."""
MOST_GROWTH_BYTES = 200 * 1024 * 1024
"""An answer may be held as it came, unpacked, and as text."""


@cache
def bomb() -> bytes:
    """Made when it is first sent: every process that collects this module would take seconds for it."""
    return gzip.compress(b" " * (20 * MAX_ANSWER_BYTES))


def http(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


NOTHING_DONE: dict[str, Any] = dict.fromkeys(
    ["examined", "workspace_repos", "tracked_only_repos", "untracked", "changed"], 0
) | {"changes": [], "locked": []}
JSON = "Content-Type: application/json"
NO_TEXTS = b'{"code": [], "message": {}, "hint": 7}'

HOSTILE: dict[str, bytes | Callable[[], bytes]] = {
    "a page": http("200 OK", b"<html>Welcome to the hotel's network</html>", "Content-Type: text/html"),
    "nothing": http("200 OK", b""),
    "no content": http("204 No Content", b""),
    "a number": http("200 OK", b"7", JSON),
    "another function's answer": http("200 OK", b'{"held": true, "expires_in_seconds": 13}', JSON),
    "an error as a success": http("200 OK", b'{"code": "57014", "message": "canceled"}', JSON),
    "deep": http("200 OK", b"[" * 100_000, JSON),
    "no text": http("200 OK", bytes(range(256)), JSON),
    "a time without a zone": http(
        "200 OK", json.dumps(NOTHING_DONE | {"applied_at": "2025-01-03T00:00:00"}).encode(), JSON
    ),
    "an endless number": http(
        "200 OK",
        json.dumps(NOTHING_DONE | {"applied_at": "2025-01-03T00:00:00Z", "database_seconds": 1e999}).encode(),
        JSON,
    ),
    "shorter than said": http("200 OK", b'{"examined": 0', JSON, length=5000),
    "chunks that end early": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"exa\r\n',
    "a chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "no gzip": http("200 OK", b"{}", JSON, "Content-Encoding: gzip"),
    "a bomb": lambda: http("200 OK", bomb(), JSON, "Content-Encoding: gzip"),
    "a bomb for an error": lambda: http("500 Internal Server Error", bomb(), JSON, "Content-Encoding: gzip"),
    "elsewhere": http("301 Moved Permanently", b"", "Location: https://elsewhere.example.com/"),
    "here": http("308 Permanent Redirect", b"", "Location: /"),
    "a page that forbids": http("403 Forbidden", b"<html>Forbidden</html>"),
    "a page that does not know us": http("401 Unauthorized", b"<html>Who are you?</html>"),
    "a page about nothing": http("404 Not Found", b"<html>Not found</html>"),
    "a page that is too large": http("413 Content Too Large", b"<html>Too large</html>"),
    "an error in a foreign form": http("400 Bad Request", b'{"error": {"code": 7}}', JSON),
    "an error with odd fields": http(
        "500 Internal Server Error", b'{"code": [], "message": {}, "hint": 7}', JSON
    ),
    "come back whenever": http("503 Service Unavailable", b"", "Retry-After: soon"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x00\x08\x07\x00\x00\x00\x00\x00",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
}


USUAL = ["a page", "another function's answer", "shorter than said", "no gzip", "here", "no HTTP"]
"""One of each kind, except the bomb, which takes seconds of processor time to pack and to unpack."""
OTHERS = [name for name in HOSTILE if name not in USUAL]


@pytest.mark.parametrize(
    "answers",
    [
        USUAL,
        pytest.param(OTHERS[:12], marks=pytest.mark.situations),
        pytest.param(OTHERS[12:], marks=pytest.mark.situations),
    ],
)
async def test_whatever_answers_the_change_is_applied_when_supabase_does(
    stack: Stack, answers: list[str]
) -> None:
    app = stack.app
    workspace = app.workspace()
    async with serve_proxy(urlsplit(stack.server.url).port or 0) as proxy:
        settings: dict[str, Any] = {"SUPABASE_URL": f"http://127.0.0.1:{proxy.port}", **NO_TIMER}
        async with stack.daemon(**settings) as daemon:
            before = psutil.Process(daemon.process.pid).memory_info().rss
            for name in answers:
                repository, lines = app.repository(), len(daemon.logs)
                answer = HOSTILE[name]
                proxy.canned[name] = answer() if callable(answer) else answer
                app.add(workspace, repository)

                def told(lines: int = lines) -> bool:
                    return any(line["event"] in FAILED for line in daemon.logs[lines:])

                await eventually(told)
                await eventually(lambda: daemon.answers("/livez", 200))
                assert await daemon.metric("parked_repositories") == 0, name
                assert app.row(repository)[0] == "medium", name
                del proxy.canned[name]
                await eventually(lambda repository=repository: app.row(repository)[0] == "high")
            assert psutil.Process(daemon.process.pid).memory_info().rss - before < MOST_GROWTH_BYTES
            await eventually(lambda: daemon.answers("/readyz", 200))
        failures = [line["error"] for line in daemon.logs if line["event"] in FAILED]
        assert all(len(error) > 10 and "{" not in error for error in failures), failures
