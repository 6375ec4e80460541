"""Failures of the sandbox's servers, on request.

| `misbehave(server, "…")` | what it does |
|---|---|
| `realtime/close?code=1012` | closes every socket with this code (1000, 1001, 1011, 1012, …) |
| `realtime/abort` | drops every socket without a closing handshake |
| `realtime/overrun` | ends every channel as the server does over its quota of messages: `system` error, `phx_close`; the sockets stay open |
| `realtime/resubscribe` | there is no slot for that time; then every channel subscribes once more, which a `system` ok reports |
| `realtime/silence` | drops changes, while channels stay joined and heartbeats are answered |
| `realtime/quota?events=1` | has a quota of that many changes a second: above it they are dropped until the average over a minute is below it |
| `realtime/lose?share=0.3` | drops this share of the changes, at random |
| `realtime/repeat` | sends each change twice |
| `realtime/delay?by=3` | sends changes that many seconds late, in order |
| `realtime/shuffle?by=1` | sends each change up to that many seconds late, in any order |
| `realtime/refuse` | answers no joins |
| `realtime/limit` | ends a socket that joins, as when there are too many joins per second |
| `realtime/private` | refuses joins of public channels, as a project that allows only private ones does |
| `realtime/disable` | refuses handshakes with 403, as for a project that may not use Realtime |
| `realtime/deny` | answers joins, then refuses the subscription with a `system` error |
| `realtime/withhold` | answers joins, then never says that the subscription has started |
| `realtime/slotless` | has no slot, but says that subscriptions have started (v2.129.8, while making a slot fails) |
| `rest/fail?status=503` | makes RPCs fail, with `&function=` only those of one function; `&sqlstate=` and `&message=` set the answer's fields, `&retry_after=` adds the header |
| `rest/page?status=403` | answers RPCs with a page of HTML, as gateways and proxies do |

All but the first three take `&seconds=N`, for how long; 0 ends it at once. RPC failures with different `&name=`
are independent. The server must have been given `Faults`. What real failures can do is left to them: stop
PostgreSQL, terminate a backend, hold a lock.
"""  # noqa: E501 - a table's row is one line

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

from starlette.responses import HTMLResponse, Response

from priorityd.daemon.sandbox import faults as sandbox
from priorityd.daemon.sandbox.rest.errors import ApiError
from tests.support.servers import Servers

AMOUNTS: Final = {
    "lose": ("share", 0.3),
    "delay": ("by", 3.0),
    "shuffle": ("by", 1.0),
    "quota": ("events", 1.0),
}
"""For faults that come in degrees: the parameter for the degree, and its default."""
_REFUSALS: Final = ("refuse", "limit", "private", "disable", "deny", "withhold", "slotless")
TIMED_FAULTS: Final = (*AMOUNTS, "silence", "repeat", *_REFUSALS)


class PageError(ApiError):
    """An answer that does not come from Supabase."""

    def response(self) -> Response:
        return HTMLResponse(f"<html><title>{self.status} Forbidden</title></html>", self.status)


@dataclass
class Faults(sandbox.Faults):
    """The failures in force."""

    _until: dict[str, float] = field(default_factory=dict)
    _amounts: dict[str, float] = field(default_factory=dict)
    _rpc: dict[tuple[str, str | None], tuple[float, Callable[[], ApiError]]] = field(default_factory=dict)

    def begin(self, fault: str, parameters: Mapping[str, str]) -> None:
        """Put a fault in force for this number of seconds; 0 ends it."""
        if fault not in TIMED_FAULTS:
            raise ValueError(f"no such fault: {fault}")
        self._until[fault] = _until(parameters)
        name, usual = AMOUNTS.get(fault, ("", 0.0))
        self._amounts[fault] = float(parameters.get(name, usual))

    def fail_rpc(self, parameters: Mapping[str, str], kind: type[ApiError] = ApiError) -> None:
        """Make RPCs fail in this way; this replaces a failure with the same name and function."""
        failure = partial(
            kind,
            int(parameters.get("status", "503")),
            parameters.get("sqlstate", "PGRST000"),
            parameters.get("message", "Database connection error. Retrying the connection."),
            retry_after=parameters.get("retry_after"),
        )
        self._rpc[parameters.get("name", ""), parameters.get("function")] = _until(parameters), failure

    def is_on(self, fault: str) -> bool:
        return time.monotonic() < self._until.get(fault, 0.0)

    def events_per_second(self, usual: float) -> float:
        return self._amounts["quota"] if self.is_on("quota") else usual

    def delays(self) -> list[float]:
        if self.is_on("lose") and random.random() < self._amounts["lose"]:
            return []
        late = self._amounts["delay"] if self.is_on("delay") else 0.0
        return [late + self._scatter() for _ in range(2 if self.is_on("repeat") else 1)]

    def rpc_failure(self, function: str) -> ApiError | None:
        now = time.monotonic()
        met = [
            (of is None, failure)
            for (_, of), (until, failure) in self._rpc.items()
            if of in (function, None) and now < until
        ]
        # One of its own comes first, then the older one.
        return min(met, key=lambda each: each[0])[1]() if met else None

    def _scatter(self) -> float:
        return random.uniform(0, self._amounts["shuffle"]) if self.is_on("shuffle") else 0.0


def misbehave(server: Servers, request: str, **parameters: object) -> None:
    """Do what the table says; parameters may be given in the request or separately."""
    path, _, query = request.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True)) | {k: str(v) for k, v in parameters.items()}
    server.do(partial(_misbehave, server, path, given))


def _misbehave(server: Servers, path: str, given: dict[str, str]) -> None:
    faults = server.faults
    assert isinstance(faults, Faults), "the server was not given any"
    match path.split("/"):
        case ["realtime", "close"]:
            server.realtime.close_sockets(int(given.get("code", "1000")))
        case ["realtime", "abort"]:
            server.abort_sockets()
        case ["realtime", "overrun"]:
            server.realtime.end_channels()
        case ["realtime", "resubscribe"]:
            server.realtime.resubscribe(float(given["seconds"]))
        case ["rest", "fail"]:
            faults.fail_rpc(given)
        case ["rest", "page"]:
            faults.fail_rpc(given | {"name": "page"}, PageError)
        case ["realtime", fault]:
            faults.begin(fault, given)
        case _:
            raise ValueError(f"no such request: {path}")


def _until(parameters: Mapping[str, str]) -> float:
    return time.monotonic() + float(parameters["seconds"])
