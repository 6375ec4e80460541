"""What can break, by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tests.chaos import alone, breakages, clock, floods, jobs
from tests.chaos.breakages import Breakage, answered, hooked, misbehaving, proxied, terminated

_CONTENTION: Final = {"status": 500, "message": "try again"}
_NO_FUNCTION: Final = {"status": 404, "sqlstate": "PGRST202", "message": "no function"}
_GATEWAY_TIMEOUT: Final = {"status": 504, "sqlstate": "PGRST003", "message": "no connection in time"}
_HTML: Final = "<html><body>Bad gateway</body></html>"


@dataclass(frozen=True)
class Fault:
    """`seconds`: how long it is held, None for any time; `is_alone`: never together with others."""

    breaks: Breakage
    seconds: float | None = None
    is_alone: bool = False


def _rest(name: str, **parameters: Any) -> Breakage:
    return partial(hooked, path="rest/fail", name=name, **parameters)


_REALTIME: Final[dict[str, Breakage]] = {
    **{
        f"close_{code}": partial(misbehaving, path="realtime/close", code=code) for code in (1000, 1001, 1012)
    },
    "abort": partial(misbehaving, path="realtime/abort"),
    "overrun": partial(misbehaving, path="realtime/overrun"),
    "resubscribe": breakages.resubscribed,
    "silence": partial(hooked, path="realtime/silence"),
    "quota": partial(hooked, path="realtime/quota", events=0),
    "lose": partial(hooked, path="realtime/lose", share=0.3),
    "repeat": partial(hooked, path="realtime/repeat"),
    "delay": partial(hooked, path="realtime/delay", by=3),
    "shuffle": partial(hooked, path="realtime/shuffle", by=2),
    **{
        name: partial(hooked, path=f"realtime/{name}", close=True)
        for name in ("refuse", "limit", "disable", "deny", "withhold", "slotless")
    },
}
_REST: Final[dict[str, Breakage]] = {
    "503": _rest("503", status=503),
    "504": _rest("504", **_GATEWAY_TIMEOUT),
    "429": _rest("429", status=429, sqlstate="", message="slow down", retry_after=2),
    **{code: _rest(code, **_CONTENTION, sqlstate=code) for code in ("57014", "55P03", "40P01", "53300")},
    "PGRST202": _rest("PGRST202", **_NO_FUNCTION),
    "PGRST301": _rest("PGRST301", **breakages.WRONG_SECRET),
    "22023": _rest("22023", status=400, sqlstate="22023", message="die Rolle existiert nicht"),
    "42501": _rest("42501", status=403, sqlstate="42501", message="keine Berechtigung"),
    "key_flapping": breakages.key_flapping,
    "slow_cache": breakages.cache_is_slow,
    "403_page": partial(hooked, path="rest/page", status=403),
    "502": partial(answered, head="502 Bad Gateway\r\nContent-Type: text/html", body=_HTML),
    "garbage": partial(answered, head="200 OK\r\nContent-Type: application/json", body='{"changes": ['),
}
_NETWORK: Final[dict[str, Breakage]] = {
    "refused": partial(proxied, mode="refused"),
    "frozen": partial(proxied, mode="frozen"),
    "half_open": partial(proxied, mode="half_open"),
    "slow": partial(proxied, mode="slow"),
    "cut_before": partial(proxied, mode="cut_before"),
    "cut_after": partial(proxied, mode="cut_after"),
    "truncated": partial(proxied, mode="truncated"),
    "dripping": partial(proxied, mode="dripping"),
    "reset": breakages.reset,
}
_DATABASE: Final[dict[str, Breakage]] = {
    "replication_terminated": partial(
        terminated, which="pid in (select active_pid from pg_replication_slots)"
    ),
    "backends_terminated": partial(terminated, which="backend_type <> 'autovacuum worker'"),
    "postgres_stopped": breakages.postgres_stopped,
    "postgres_is_a_standby": breakages.postgres_is_a_standby,
    "postgres_restarted": breakages.postgres_restarted,
    "postgres_crashed": breakages.postgres_crashed,
    "rows_locked": breakages.rows_locked,
    "row_poisoned": breakages.row_poisoned,
}
_CLOCK: Final[dict[str, Breakage]] = {
    "clock_an_hour_ahead": partial(breakages.clock_jumped, seconds=clock.HOUR_SECONDS),
    "clock_an_hour_behind": partial(breakages.clock_jumped, seconds=-clock.HOUR_SECONDS),
}
_DAEMON: Final[dict[str, Breakage]] = {
    "daemon_killed": breakages.daemon_killed,
    "second_daemon": breakages.second_daemon,
    **(_CLOCK if clock.LIBRARY is not None else {}),
}
_FLOODS: Final[dict[str, Breakage]] = {"flapping": floods.flapping, "burst": floods.burst}

FAULTS: Final[dict[str, Fault]] = {
    **{f"realtime_{name}": Fault(breaks) for name, breaks in _REALTIME.items()},
    **{f"rest_{name}": Fault(breaks) for name, breaks in _REST.items()},
    **{f"network_{name}": Fault(breaks) for name, breaks in _NETWORK.items()},
    **{name: Fault(breaks) for name, breaks in (_DATABASE | _DAEMON | _FLOODS).items()},
    "daemon_stopped": Fault(breakages.daemon_stopped, seconds=20),
    "rows_locked_for_long": Fault(alone.rows_locked_for_long, seconds=60, is_alone=True),
    "leader_killed": Fault(alone.leader_killed, is_alone=True),
    "jobs_unreported": Fault(jobs.jobs_unreported, is_alone=True),
    "row_poisoned_and_parked": Fault(alone.row_poisoned_and_parked, is_alone=True),
}
"""Every fault, by its name in the summary."""
