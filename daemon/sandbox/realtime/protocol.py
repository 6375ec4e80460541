"""Frames of the Phoenix channel protocol as used by Supabase Realtime. Pure.

In version 1.0.0 a frame is a JSON object: `topic`, `event`, `payload`, `ref`, and from clients also
`join_ref`, which the server does not send back. In version 2.0.0 it is an array: `[join_ref, ref, topic,
event, payload]`. A push has no `ref`; a reply has that of the message that it answers; `phx_close` has that
of the join. Keys are in alphabetical order, like those of Elixir's small maps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

OBJECTS = "1.0.0"
ARRAYS = "2.0.0"
VERSIONS = (OBJECTS, ARRAYS)


class MalformedFrame(ValueError):  # noqa: N818 - named by what it is
    """A frame that can't be understood; the text says why."""


@dataclass(frozen=True)
class Message:
    """A message from a client."""

    topic: str
    event: str
    payload: Any
    ref: str | None
    join_ref: str | None


def decode(text: str, version: str) -> Message:
    """Parse a client's frame. Raises `MalformedFrame`."""
    try:
        frame = json.loads(text)
    except ValueError as error:
        raise MalformedFrame("not JSON") from error
    if version == ARRAYS:
        return _from_array(frame)
    return _from_object(frame)


def _from_array(frame: Any) -> Message:
    match frame:
        case [join_ref, ref, str(topic), str(event), payload]:
            return Message(topic, event, payload, ref, join_ref)
    raise MalformedFrame("not an array of join_ref, ref, topic, event and payload")


def _from_object(frame: Any) -> Message:
    match frame:
        case {"topic": str(topic), "event": str(event), "payload": payload, "ref": ref}:
            return Message(topic, event, payload, ref, frame.get("join_ref"))
    raise MalformedFrame("not an object with topic, event, payload and ref")


def to_json(value: Any) -> str:
    """Compact JSON with keys in alphabetical order."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class Framer:
    """Writes the server's frames for one topic, in the client's version."""

    version: str
    topic: str
    join_ref: str | None

    def reply(self, ref: str | None, status: str, response: str) -> str:
        """The answer to a message; `response` is JSON text."""
        return self._frame("phx_reply", f'{{"response":{response},"status":"{status}"}}', ref)

    def push(self, event: str, payload: str) -> str:
        """A message that is not an answer; `payload` is JSON text."""
        return self._frame(event, payload, None)

    def close(self) -> str:
        """The end of the channel, on an open socket."""
        return self._frame("phx_close", "{}", self.join_ref)

    def system(self, extension: str, status: str, message: str) -> str:
        """A `system` push, about a subscription or a token."""
        channel = self.topic.removeprefix("realtime:")
        payload = {"channel": channel, "extension": extension, "message": message, "status": status}
        return self.push("system", to_json(payload))

    def _frame(self, event: str, payload: str, ref: str | None) -> str:
        topic, name, ref_text = json.dumps(self.topic, ensure_ascii=False), json.dumps(event), json.dumps(ref)
        if self.version == ARRAYS:
            return f"[{json.dumps(self.join_ref)},{ref_text},{topic},{name},{payload}]"
        return f'{{"event":{name},"payload":{payload},"ref":{ref_text},"topic":{topic}}}'
