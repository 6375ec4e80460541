"""Failures on request, for tests and demonstrations.

| `POST /sandbox/v1/…` | what it does |
|---|---|
| `realtime/close?code=1012` | closes every socket with this code (1000, 1001, 1011, 1012, …) |
| `realtime/abort` | drops every socket without a closing handshake |
| `realtime/overrun` | ends every channel as the server does over its quota of messages: `system` error, `phx_close`; the sockets stay open |
| `realtime/resubscribe` | there is no slot for so long; then channels are told by one more `system` ok, as some versions do |
| `realtime/silence` | drops changes, while channels stay joined and heartbeats are answered |
| `realtime/lose?share=0.3` | drops this share of the changes, at random |
| `realtime/repeat` | sends each change twice |
| `realtime/delay?by=3` | sends changes so many seconds late, in order |
| `realtime/shuffle?by=1` | sends each change up to so many seconds late, in any order |
| `realtime/refuse` | answers no joins |
| `realtime/limit` | answers joins with the error of too many of them per second |
| `realtime/deny` | answers joins, then refuses the subscription by `system` errors |
| `realtime/withhold` | answers joins, then never says that the subscription has started |
| `rest/fail?status=503` | lets RPCs fail, with `&function=` those of one function only; `&sqlstate=` and `&message=` word the answer, `&retry_after=` adds the header |

All but the first three take `&seconds=N`, for how long; 0 ends it at once. RPC failures with different `&name=`
do not disturb each other. All of them need the service_role key. What a real failure can do is left to real
failures: stop PostgreSQL, terminate a backend, hold a lock.
"""  # noqa: E501 - a table's row is one line

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Literal, get_args

TimedFault = Literal["silence", "lose", "repeat", "delay", "shuffle", "refuse", "limit", "deny", "withhold"]
TIMED_FAULTS: tuple[TimedFault, ...] = get_args(TimedFault)
_AMOUNTS: dict[TimedFault, tuple[str, float]] = {
    "lose": ("share", 0.3),
    "delay": ("by", 3.0),
    "shuffle": ("by", 1.0),
}


@dataclass(frozen=True)
class RestFailure:
    """How RPCs fail, those of one function or (None) all, and until when (monotonic seconds)."""

    status: int
    sqlstate: str
    message: str
    function: str | None
    retry_after: str | None
    until: float


@dataclass
class Faults:
    """The failures in force."""

    _until: dict[TimedFault, float] = field(default_factory=dict)
    _amounts: dict[TimedFault, float] = field(default_factory=dict)
    _rest: dict[tuple[str, str | None], RestFailure] = field(default_factory=dict)

    def begin(self, fault: TimedFault, seconds: float, amount: float | None = None) -> None:
        """Have this for so long; 0 ends it."""
        self._until[fault] = time.monotonic() + seconds
        self._amounts[fault] = amount if amount is not None else _AMOUNTS.get(fault, ("", 0.0))[1]

    def is_on(self, fault: TimedFault) -> bool:
        """Whether this is in force now."""
        return time.monotonic() < self._until.get(fault, 0.0)

    def delays(self) -> list[float]:
        """When to send a change: one entry for each time that it is to be sent, in seconds from now."""
        if self.is_on("lose") and random.random() < self._amounts["lose"]:  # noqa: S311 - no secret
            return []
        late = self._amounts["delay"] if self.is_on("delay") else 0.0
        return [late + self._scatter() for _ in range(2 if self.is_on("repeat") else 1)]

    def _scatter(self) -> float:
        return random.uniform(0, self._amounts["shuffle"]) if self.is_on("shuffle") else 0.0  # noqa: S311

    def fail_rest(self, name: str, failure: RestFailure) -> None:
        """Let RPCs fail in this way; it replaces what has the same name and function."""
        self._rest[name, failure.function] = failure

    def rest_failure(self, function: str) -> RestFailure | None:
        """The failure that a call of this function meets now, if any; one of its own comes first."""
        now = time.monotonic()
        met = [f for f in self._rest.values() if f.function in (function, None) and now < f.until]
        return min(met, key=lambda failure: failure.function is None, default=None)


def amount_parameter(fault: TimedFault) -> str | None:
    """The name of the parameter that says how much of it, None if there is no more or less of it."""
    return _AMOUNTS[fault][0] if fault in _AMOUNTS else None
