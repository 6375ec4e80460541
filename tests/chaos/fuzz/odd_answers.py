"""Answers of RPCs that no server should give, by kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from tests.chaos.fuzz.nonsense import DEEP, Chance, damaged, value

CHANGE: Final = {
    "id": "11111111-1111-4111-8111-111111111111",
    "repository_id": "22222222-2222-4222-8222-222222222222",
    "old_priority": "medium",
    "new_priority": "high",
    "is_workspace_repo": True,
    "workspace_count": 1,
    "old_workspace_count": 0,
}
SYNC: Final = {
    "examined": 1,
    "workspace_repos": 1,
    "tracked_only_repos": 0,
    "untracked": 0,
    "changed": 1,
    "changes": [CHANGE],
    "locked": [],
    "applied_at": "2025-01-03T00:00:00+00:00",
    "next_after": None,
    "more": False,
    "database_seconds": 0.01,
    "beat_at": "2025-01-03T00:00:00+00:00",
}
"""A valid answer to several of the functions."""


def _http(status: int | str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Odd", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _json_answer(chance: Chance, body: Any, status: int = 200) -> bytes:
    return _http(status, json.dumps(body).encode(), "Content-Type: application/json")


def _odd_error(chance: Chance) -> bytes:
    status = chance.choice(
        (300, 302, 400, 401, 403, 404, 405, 406, 408, 409, 425, 429, 500, 502, 503, 504, 599)
    )
    codes: list[Any] = ["PGRST202", "57014", "40001", "P0001", "PT409", "", "x" * 300, 7, None, [], {}]
    code = chance.choice(codes)
    body = chance.choice(
        (
            json.dumps({"code": code, "message": value(chance), "details": value(chance)}),
            json.dumps(value(chance)),
            "<html>no</html>",
            "",
        )
    )
    seconds = chance.choice(("0", "-1", "nan", "1e999", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 400))
    headers = [f"Retry-After: {seconds}"] if status in (429, 503) else []
    if status in (300, 302):
        headers.append(
            "Location: " + chance.choice(("http://[::1", "/", "//", "ftp://x/", "\x01", "http://a:b/"))
        )
    return _http(status, body.encode(), *headers)


def _no_http(chance: Chance) -> bytes:
    return chance.choice((b"", b"\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", chance.randbytes(200), b"HTTP/1.1 2"))


def _odd_headers(chance: Chance) -> bytes:
    body = json.dumps(SYNC).encode()
    header = chance.choice(
        (
            "Content-Encoding: gzip",
            "Content-Encoding: br, x, deflate",
            "Content-Type: text/plain; charset=nothing",
            "Content-Length: -5",
            "Transfer-Encoding: chunked",
            "X: " + "y" * 200_000,
            "Connection: upgrade",
        )
    )
    return _http(chance.choice((200, 200, 206, 101, 204)), body, header)


def _shorter_than_said(chance: Chance) -> bytes:
    body = json.dumps(SYNC).encode()
    return _http(200, body[: chance.randrange(len(body))], length=len(body))


ANSWERS: Final[dict[str, tuple[float, Callable[[Chance], bytes]]]] = {
    "any_json": (20, lambda chance: _json_answer(chance, value(chance))),
    "damaged": (40, lambda chance: _json_answer(chance, damaged(chance, SYNC, chance.choice((1, 2, 4))))),
    "odd_error": (20, _odd_error),
    "not_json": (5, lambda chance: _http(200, chance.randbytes(chance.randrange(200)))),
    "truncated_json": (5, lambda chance: _http(200, json.dumps(SYNC).encode()[: chance.randrange(200)])),
    "shorter_than_said": (2, _shorter_than_said),
    "no_http": (2, _no_http),
    "odd_headers": (2, _odd_headers),
    "wrong_numbers": (2, lambda chance: _http(200, json.dumps(SYNC).replace("1", "1e999", 1).encode())),
    "deep": (0.2, lambda chance: _http(200, chance.choice((b"[", b'{"a":')) * DEEP)),
    "huge": (
        0.02,
        lambda chance: _json_answer(chance, SYNC | {"changes": [CHANGE] * 20_000, "examined": None}),
    ),
}
"""The kinds, with their weights."""
