"""Frames of the change stream that no server should send, by kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID, uuid4

from tests.chaos.fuzz.nonsense import DEEP, TEXTS, Chance, damaged, new_id, value

TOPIC: Final = "realtime:priorityd"

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
_HUGE_CHARACTERS: Final = 1_500_000

Frame = str | bytes


def change(repository_id: UUID) -> dict[str, Any]:
    """A real change frame: this repository joins a workspace."""
    data: dict[str, Any] = {
        "schema": "public",
        "table": "workspace_repositories",
        "type": "INSERT",
        "commit_timestamp": "2026-11-24T01:57:44.083Z",
        "errors": None,
        "columns": [],
        "record": {"id": str(uuid4()), "repository_id": str(repository_id)},
    }
    return {"event": "postgres_changes", "topic": TOPIC, "ref": None, "payload": {"data": data, "ids": [1]}}


def _real(chance: Chance) -> dict[str, Any]:
    return change(new_id(chance))


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
        "message": chance.choice(TEXTS),
        "status": chance.choice(("ok", "odd", "")),
    }
    return json.dumps({"event": "system", "topic": TOPIC, "payload": damaged(chance, payload), "ref": None})


def _another_ok(chance: Chance) -> Frame:
    payload = {"channel": "priorityd", "extension": "postgres_changes", "status": "ok"}
    payload["message"] = chance.choice(TEXTS)
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
    "deep": (0.02, lambda chance: chance.choice(("[", '{"event":')) * DEEP),
    "huge": (0.005, lambda chance: json.dumps("x" * _HUGE_CHARACTERS)),
    "not_unicode_text": (0.005, lambda chance: b"\x81\x05hell\xff"),
    "ends_the_channel": (0.01, _ends),
    "no_websocket_frame": (0.005, lambda chance: b"\xff" + chance.randbytes(20)),
}
"""The kinds, with their weights. Those that end the connection are rare, since a reconnect takes time."""

ENDING_KINDS: Final = ("huge", "not_unicode_text", "ends_the_channel", "no_websocket_frame")
"""After these the client closes the connection."""
RAW_KINDS: Final = ("not_unicode_text", "no_websocket_frame")
"""Written to the socket directly, below the WebSocket protocol."""
