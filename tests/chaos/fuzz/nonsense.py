"""What no server should send, by kind, from a seed: frames of the change stream and answers of RPCs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID, uuid4

TOPIC: Final = "realtime:priorityd"

_TEXTS: Final = ("", "ok", "error", "INSERT", "\u0000", "2026-11-24T01:57:44.083Z", "\ud7ff é 🦄", "null")
_NUMBERS: Final = (-1, 0, 2**70, 1.5e300, 1e-320, True, False)
_NAMES: Final = (
    "data",
    "ids",
    "record",
    "table",
    "type",
    "status",
    "response",
    "commit_timestamp",
    "message",
    "changes",
    "applied_at",
    "code",
)
_EVENTS: Final = (
    "postgres_changes",
    "system",
    "phx_reply",
    "presence_state",
    "presence_diff",
    "broadcast",
    "new",
    "",
)
_TOPICS: Final = (TOPIC, "phoenix", "realtime:other", "")
_DEEP: Final = 20_000
_HUGE_CHARACTERS: Final = 1_500_000

Frame = str | bytes
Chance = random.Random


def value(chance: Chance, depth: int = 0) -> Any:
    """Any JSON."""
    kind = chance.randrange(9 if depth < 3 else 7)
    if kind < 2:
        return chance.choice(_TEXTS)
    if kind < 4:
        return chance.choice(_NUMBERS)
    if kind == 4:
        return str(_uuid(chance))
    if kind == 5:
        return None
    if kind == 6:
        return "x" * chance.choice((10, 1000))
    if kind == 7:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(_NAMES): value(chance, depth + 1) for _ in range(chance.randrange(5))}


def change(repository_id: UUID) -> dict[str, Any]:
    """A real change frame: this repository joins a workspace."""
    data = {
        "schema": "public",
        "table": "workspace_repositories",
        "type": "INSERT",
        "commit_timestamp": "2026-11-24T01:57:44.083Z",
        "errors": None,
        "columns": [],
        "record": {"id": str(uuid4()), "repository_id": str(repository_id)},
    }
    return {"event": "postgres_changes", "topic": TOPIC, "ref": None, "payload": {"data": data, "ids": [1]}}


def damaged(chance: Chance, real: Any, times: int = 1) -> Any:
    """The same with something in it replaced, taken away or added."""
    copy = json.loads(json.dumps(real))
    for _ in range(times):
        place = copy
        while isinstance(place, dict) and place:
            name = chance.choice(list(place))
            if isinstance(place[name], dict) and place[name] and chance.random() < 0.7:
                place = place[name]
                continue
            match chance.randrange(3):
                case 0:
                    del place[name]
                case 1:
                    place[name] = value(chance)
                case _:
                    place[chance.choice(_NAMES)] = value(chance)
            break
    return copy


def _uuid(chance: Chance) -> UUID:
    return UUID(int=chance.getrandbits(128), version=4)


def _real(chance: Chance) -> dict[str, Any]:
    return change(_uuid(chance))


def _truncated(chance: Chance) -> Frame:
    text = json.dumps(_real(chance))
    return text[: chance.randrange(len(text))]


def _odd_frame(chance: Chance) -> Frame:
    frame = {"event": chance.choice(_EVENTS), "topic": chance.choice(_TOPICS), "payload": value(chance)}
    return json.dumps(frame | {"ref": chance.choice((None, "1", 7, "999"))})


def _odd_system(chance: Chance) -> Frame:
    payload = {
        "channel": chance.choice(("priorityd", "other", "")),
        "extension": chance.choice(("presence", "broadcast", "system", "")),
        "message": chance.choice(_TEXTS),
        "status": chance.choice(("ok", "odd", "")),
    }
    return json.dumps({"event": "system", "topic": TOPIC, "payload": damaged(chance, payload), "ref": None})


def _another_ok(chance: Chance) -> Frame:
    payload = {"channel": "priorityd", "extension": "postgres_changes", "status": "ok"}
    payload["message"] = chance.choice(_TEXTS)
    return json.dumps({"event": "system", "topic": TOPIC, "payload": payload, "ref": None})


def _odd_reply(chance: Chance) -> Frame:
    payload = {"status": chance.choice(("ok", "error", "odd")), "response": value(chance)}
    ref = str(chance.randrange(3, 100_000))
    return json.dumps({"event": "phx_reply", "topic": chance.choice(_TOPICS), "payload": payload, "ref": ref})


def _wrong_numbers(chance: Chance) -> Frame:
    text = json.dumps(_real(chance))
    return text.replace("null", chance.choice(("NaN", "-Infinity", "1e999", "-0", "1" * 5000)), 1)


def _not_unicode(chance: Chance) -> Frame:
    data = bytearray(json.dumps(_real(chance)).encode())
    data[chance.randrange(len(data))] = chance.choice((0x80, 0xC0, 0xFF))
    return bytes(data)


def _ends(chance: Chance) -> Frame:
    if chance.random() < 0.5:
        payload = {
            "channel": "priorityd",
            "extension": "postgres_changes",
            "status": "error",
            "message": "no",
        }
        return json.dumps({"event": "system", "topic": TOPIC, "payload": payload, "ref": None})
    event = chance.choice(("phx_close", "phx_error"))
    return json.dumps({"event": event, "topic": TOPIC, "payload": {}, "ref": chance.choice((None, "1", "2"))})


FRAMES: Final[dict[str, tuple[float, Callable[[Chance], Frame]]]] = {
    "truncated": (10, _truncated),
    "bytes": (10, lambda chance: chance.randbytes(chance.randrange(100))),
    "any_json": (10, lambda chance: json.dumps(value(chance))),
    "damaged_change": (
        30,
        lambda chance: json.dumps(damaged(chance, _real(chance), chance.choice((1, 1, 3)))),
    ),
    "odd_frame": (20, _odd_frame),
    "odd_system": (5, _odd_system),
    "another_ok": (0.5, _another_ok),
    "odd_reply": (10, _odd_reply),
    "wrong_numbers": (3, _wrong_numbers),
    "not_unicode": (3, _not_unicode),
    "deep": (0.02, lambda chance: chance.choice(("[", '{"event":')) * _DEEP),
    "huge": (0.005, lambda chance: json.dumps("x" * _HUGE_CHARACTERS)),
    "not_unicode_text": (0.005, lambda chance: b"\x81\x05hell\xff"),
    "ends_the_channel": (0.01, _ends),
    "no_websocket_frame": (0.005, lambda chance: b"\xff" + chance.randbytes(20)),
}
"""How often, and how. Those that end the connection are rare: a reconnect takes its time."""

ENDING_KINDS: Final = ("huge", "not_unicode_text", "ends_the_channel", "no_websocket_frame")
"""After these the client closes the connection."""
RAW_KINDS: Final = ("not_unicode_text", "no_websocket_frame")
"""Written to the socket as they are, under the WebSocket protocol."""

CHANGE: Final = {
    "id": "11111111-1111-4111-8111-111111111111",
    "repository_id": "22222222-2222-4222-8222-222222222222",
    "old_priority": "medium",
    "new_priority": "high",
    "is_workspace_repo": True,
    "workspace_count": 1,
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
"""What answers several of the functions."""


def _http(status: int | str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Odd", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _json_answer(chance: Chance, body: Any, status: int = 200) -> bytes:
    return _http(status, json.dumps(body).encode(), "Content-Type: application/json")


def _odd_error(chance: Chance) -> bytes:
    status = chance.choice(
        (300, 302, 400, 401, 403, 404, 405, 406, 408, 409, 425, 429, 500, 502, 503, 504, 599)
    )
    code = chance.choice(("PGRST202", "57014", "40001", "P0001", "PT409", "", "x" * 300, 7, None, [], {}))
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
    "deep": (0.2, lambda chance: _http(200, chance.choice((b"[", b'{"a":')) * _DEEP)),
    "huge": (
        0.02,
        lambda chance: _json_answer(chance, SYNC | {"changes": [CHANGE] * 20_000, "examined": None}),
    ),
}
"""How often, and how."""


class Mixture:
    """Draws from one of the tables above and counts."""

    def __init__(self, table: dict[str, tuple[float, Callable[[Chance], Any]]], chance: Chance) -> None:
        self._table = table
        self._chance = chance
        self._names = list(table)
        self._weights = [weight for weight, _ in table.values()]
        # Each kind once before chance decides, so that a small form has all of them, too.
        self._first = list(table)
        self.counts = dict.fromkeys(table, 0)

    def draw(self) -> tuple[str, Any]:
        """A kind and one of it."""
        name = self._first.pop() if self._first else self._chance.choices(self._names, self._weights)[0]
        self.counts[name] += 1
        return name, self._table[name][1](self._chance)
