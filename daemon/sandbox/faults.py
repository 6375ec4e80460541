"""Failures on request, for tests and demonstrations.

- `POST /sandbox/v1/realtime/close?code=1012`: close every socket with this code (1000, 1001, 1011, 1012, …).
- `POST /sandbox/v1/realtime/abort`: drop every socket without a closing handshake.
- `POST /sandbox/v1/realtime/silence?seconds=N`: drop changes, while channels stay joined and heartbeats are
  answered.
- `POST /sandbox/v1/realtime/refuse?seconds=N`: answer no joins.
- `POST /sandbox/v1/rest/fail?status=503&seconds=N`: let RPCs fail, with `&function=` those of one function
  only; `&sqlstate=` and `&message=` word the answer.

All of them need the service_role key. `seconds=0` ends a failure at once. What a real failure can do is left
to real failures: stop PostgreSQL, terminate a backend, hold a lock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RestFailure:
    """How RPCs fail, and until when (monotonic seconds)."""

    status: int
    sqlstate: str
    message: str
    until: float


@dataclass
class Faults:
    """The failures in force."""

    _silent_until: float = 0.0
    _refusing_until: float = 0.0
    _rest: dict[str | None, RestFailure] = field(default_factory=dict)

    def silence(self, seconds: float) -> None:
        """Drop every change for this long."""
        self._silent_until = time.monotonic() + seconds

    def refuse(self, seconds: float) -> None:
        """Leave joins without an answer for this long."""
        self._refusing_until = time.monotonic() + seconds

    def fail_rest(
        self, status: int, seconds: float, function: str | None, sqlstate: str, message: str
    ) -> None:
        """Let all RPCs, or those of one function, fail for this long."""
        self._rest[function] = RestFailure(status, sqlstate, message, time.monotonic() + seconds)

    @property
    def silent(self) -> bool:
        """Whether changes are dropped now."""
        return time.monotonic() < self._silent_until

    @property
    def refusing(self) -> bool:
        """Whether joins are left without an answer now."""
        return time.monotonic() < self._refusing_until

    def rest_failure(self, function: str) -> RestFailure | None:
        """The failure that a call of this function meets now, if any."""
        for name in (function, None):
            failure = self._rest.get(name)
            if failure and time.monotonic() < failure.until:
                return failure
        return None
