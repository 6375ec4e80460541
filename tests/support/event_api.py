"""A stand-in for Inngest's event API, for tests. It is not Inngest: it accepts events and runs nothing.

It checks what the real one checks, and answers in its shapes. Source: Inngest's open-source server,
`pkg/api/api.go`, `pkg/eventstream/eventstream.go`, `pkg/event/inbound.go` and `pkg/consts/consts.go`.

- `POST /e/{key}`; an unknown key is 401 `{"status", "message", "error"}`.
- The body is one event or an array of them; anything else is 400. `[]` is 200.
- At most 5,000 events, at most `max_event_bytes` each (256 KiB, as on the smallest plan), a name that is not
  empty, not above 256 characters (the documented limit) and does not begin with `inngest/`.
- Answers are `{"ids", "status", "error"?}`. A batch is not atomic: events before a refused one are accepted,
  and their ids are in the 400.
- An event whose id was seen in the last 24 hours is answered like any other, with another internal id, and
  starts no run (`FunctionIdempotencyPeriod` in `pkg/consts/consts.go`).
- `GET /v1/events/{internal id}/runs` lists the runs that an event has started, none for a repeat; an id that
  is not a ULID is 400 (`getEventRuns` in `pkg/api/apiv1/events.go` and `FunctionRun` in
  `pkg/cqrs/function_runs.go`, 253303c).

`Faults` make it fail. In a test's own process it is an `EventApi`; `python -m tests.support.event_api` runs
it as a separate process, which prints its URL and is controlled by HTTP under `/stand-in/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from uuid import uuid4

import anyio
import uvicorn

MAX_EVENTS: Final = 5000
MAX_NAME_LENGTH: Final = 256
EVENT_KEY: Final = "test-event-key"
SEEN_SECONDS: Final = 24 * 3600.0
_ULID: Final = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")

Json = dict[str, Any]


@dataclass
class Faults:
    """What goes wrong, for the next `requests` requests (None: until changed) and `seconds`.

    `status` is answered instead of accepting; `body` replaces the answer's text. `refuse` refuses each event
    whose JSON holds that text, with `refuse_status`. `hang` never answers. `reset` cuts the connection,
    "before" or "after" the events were accepted. `accept` is how many events of a batch are accepted before
    `status` is answered. `delay` is how many seconds the answer to an accepted batch takes.
    """

    status: int | None = None
    retry_after: float | None = None
    body: str | None = None
    refuse: str | None = None
    refuse_status: int = 400
    hang: bool = False
    reset: str | None = None
    accept: int = 0
    delay: float = 0.0
    requests: int | None = None
    seconds: float | None = None
    _since: float = field(default_factory=time.monotonic, repr=False)

    def spent(self) -> bool:
        """Whether the fault is over; counts a request."""
        if self.seconds is not None and time.monotonic() - self._since > self.seconds:
            return True
        if self.requests is None:
            return False
        self.requests -= 1
        return self.requests < 0


class EventApi:
    """The event API: what it has accepted, and an ASGI application."""

    def __init__(self, keys: Sequence[str] = (EVENT_KEY,), max_event_bytes: int = 256 * 1024) -> None:
        self.keys = keys
        self.max_event_bytes = max_event_bytes
        self.faults = Faults()
        self.accepted: list[Json] = []
        self.runs: list[Json] = []
        self.clock: Callable[[], float] = time.monotonic
        self._seen: dict[str, float] = {}
        self._runs_of: dict[str, list[Json]] = {}
        self.requests: list[int] = []
        self.attempts = 0
        self.bodies: list[bytes] = []
        self.asked: list[str] = []

    def _start(self, event: Json, internal_id: str) -> None:
        """Start a run unless the event's id was seen in the last 24 hours. `runs` are the events that did."""
        now = self.clock()
        if event["id"] and now - self._seen.get(event["id"], -SEEN_SECONDS) < SEEN_SECONDS:
            return
        self._seen[event["id"]] = now
        self.runs.append(event)
        self._runs_of[internal_id] = [{"run_id": _ulid(), "status": "Running", "event_id": internal_id}]

    def end_runs(self, status: str) -> None:
        """End all current runs with this status: Completed, Failed or Cancelled."""
        for runs in self._runs_of.values():
            for run in runs:
                run["status"] = status

    def named(self, name: str) -> list[Json]:
        """The accepted events with this name."""
        return [event for event in self.runs if event["name"] == name]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        body = await _read(receive)
        path, method = scope["path"], scope["method"]
        if path.startswith("/stand-in/"):
            await _answer(send, 200, self._told(path, body))
        elif path.startswith("/v1/events/") and path.endswith("/runs") and method == "GET":
            await self._tell_runs(path.split("/")[3], send)
        elif path == "/health":
            await _answer(send, 200, {"status": 200, "message": "OK"})
        elif not path.startswith("/e/") or "/" in path[3:] or not path[3:]:
            await _answer(send, 404, "404 page not found\n")
        elif method != "POST":
            await _answer(send, 405, "")
        else:
            await self._receive_events(path[3:], body, send)

    async def _tell_runs(self, internal_id: str, send: Any) -> None:
        self.asked.append(internal_id)
        if not _ULID.fullmatch(internal_id):
            await _answer(send, 400, {"error": f"Invalid event ID: {internal_id}", "status": 400})
            return
        await _answer(send, 200, {"data": self._runs_of.get(internal_id, [])})

    def _told(self, path: str, body: bytes) -> Any:
        if path == "/stand-in/faults":
            self.faults = Faults(**json.loads(body))
            return asdict(self.faults)
        if path == "/stand-in/accepted":
            return {"accepted": self.accepted, "requests": self.requests, "attempts": self.attempts}
        raise ValueError(path)

    async def _receive_events(self, key: str, body: bytes, send: Any) -> None:
        self.attempts += 1
        if self.keys and key not in self.keys:
            await _answer(send, 401, {"status": 401, "message": "", "error": "Event key not found"})
            return
        faults = Faults() if self.faults.spent() else self.faults
        if faults.hang:
            await anyio.sleep_forever()
        if faults.reset == "before":
            _cut(send)
            return
        limit = faults.accept if faults.status is not None else MAX_EVENTS
        ids, error = self._take(body, faults.refuse, limit)
        await anyio.sleep(faults.delay)
        if faults.reset == "after":
            _cut(send)
        elif faults.status is not None:
            shape = {"ids": ids or [""], "status": faults.status, "error": "told to fail"}
            await _answer(
                send, faults.status, shape if faults.body is None else faults.body, faults.retry_after
            )
        elif error:
            shape = {"ids": ids or [""], "status": faults.refuse_status, "error": error}
            await _answer(send, faults.refuse_status, shape)
        else:
            await _answer(send, 200, {"ids": ids or [""], "status": 200})

    def _take(self, body: bytes, refuse: str | None, limit: int) -> tuple[list[str], str | None]:
        try:
            parsed = json.loads(body)
        except ValueError as error:
            return [], str(error)
        if not isinstance(parsed, dict | list):
            return [], "Request body must contain an event object or an array of event objects"
        events = parsed if isinstance(parsed, list) else [parsed]
        self.bodies.append(body)
        ids: list[str] = []
        for number, event in enumerate(events):
            if number == MAX_EVENTS:
                return ids, f"Cannot have more than {MAX_EVENTS} events in a batch"
            if number == limit:
                break
            why = self._why_refused(event, refuse)
            if why:
                return ids, why
            self.accepted.append({"id": "", "data": {}} | event)
            ids.append(_ulid())
            self._start(self.accepted[-1], ids[-1])
        self.requests.append(len(ids))
        return ids, None

    def _why_refused(self, event: Any, refuse: str | None) -> str | None:
        if not isinstance(event, dict):
            return "json: cannot unmarshal into Go value of type event.raw"
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode())
        if size > self.max_event_bytes:
            return f"Event is over the max size: Max {self.max_event_bytes} bytes / Size {size} bytes"
        name, data = event.get("name", ""), event.get("data")
        if not isinstance(name, str) or not isinstance(event.get("id", ""), str):
            return "json: cannot unmarshal into Go struct field raw of type string"
        if data is not None and not isinstance(data, dict):
            return "json: cannot unmarshal into Go struct field raw.data of type map[string]interface {}"
        if not name:
            return "event name is empty"
        if name.lower().startswith("inngest/"):
            return f"event name is reserved for internal use: {name}"
        if len(name) > MAX_NAME_LENGTH:
            return f"event name exceeds {MAX_NAME_LENGTH} characters"
        return "told to refuse this event" if refuse is not None and refuse in text else None


def _ulid() -> str:
    return "0" + f"{uuid4().int:025d}"[-25:]


async def _read(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Any, status: int, content: Any, retry_after: float | None = None) -> None:
    body = (content if isinstance(content, str) else json.dumps(content) + "\n").encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry_after is not None:
        headers.append((b"retry-after", f"{retry_after:g}".encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _cut(send: Any) -> None:
    # Below uvicorn's `send` is the connection: cut it, as a proxy that is restarted would.
    cycle = send.__self__
    cycle.response_started = cycle.response_complete = True
    cycle.transport.abort()


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Leave signals to the test."""


@asynccontextmanager
async def serve_asgi(application: Any, port: int = 0) -> AsyncIterator[str]:
    """Serve an ASGI application on a loopback port for the length of the block; yields its URL."""
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        timeout_graceful_shutdown=0,
    )
    server = _Server(config)
    task = asyncio.create_task(server._serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await task


@asynccontextmanager
async def serve_event_api(api: EventApi, port: int = 0) -> AsyncIterator[str]:
    """Serve the stand-in; yields its URL, to be used as INNGEST_EVENT_API_BASE_URL."""
    async with serve_asgi(api, port) as url:
        yield url


async def _main(port: int) -> None:
    async with serve_event_api(EventApi(), port) as url:
        print(json.dumps({"url": url, "event_key": EVENT_KEY}), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)  # until its parent closes the pipe or ends


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A stand-in for Inngest's event API.")
    parser.add_argument("--port", type=int, default=0)
    anyio.run(_main, parser.parse_args().port)
