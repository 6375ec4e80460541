"""The HTTP side of `faults`: `POST /sandbox/v1/…`, for the holder of the service_role key."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from priorityd.daemon.sandbox.faults import TIMED_FAULTS, Faults, RestFailure, TimedFault, amount_parameter

if TYPE_CHECKING:
    from starlette.requests import Request

    from priorityd.daemon.sandbox.keys import Keys

Hook = Callable[["Request"], dict[str, object]]
_LOWEST_CLOSE_CODE, _HIGHEST_CLOSE_CODE = 1000, 4999


class Disturbable(Protocol):
    """What of the Realtime side can be told to misbehave at once; each returns how many it has met."""

    def close_sockets(self, code: int) -> int: ...

    def end_channels(self) -> int: ...

    def resubscribe(self, seconds: float) -> int: ...


def hook_routes(
    keys: Keys, faults: Faults, realtime: Disturbable, abort_sockets: Callable[[], int]
) -> list[Route]:
    """The routes, as the table in `faults` documents them."""
    hooks: dict[str, Hook] = {
        "realtime/close": lambda request: {"closed": realtime.close_sockets(_close_code(request))},
        "realtime/abort": lambda _: {"aborted": abort_sockets()},
        "realtime/overrun": lambda _: {"ended": realtime.end_channels()},
        "realtime/resubscribe": lambda request: {"resubscribed": realtime.resubscribe(_seconds(request))},
        "rest/fail": partial(_fail_rest, faults),
    }
    for fault in TIMED_FAULTS:
        hooks[f"realtime/{fault}"] = partial(_begin, faults, fault)
    return [
        Route(f"/sandbox/v1/{path}", _guarded(keys, hook), methods=["POST"]) for path, hook in hooks.items()
    ]


def _begin(faults: Faults, fault: TimedFault, request: Request) -> dict[str, object]:
    amount = request.query_params.get(amount_parameter(fault) or "")
    faults.begin(fault, _seconds(request), float(amount) if amount is not None else None)
    return {}


def _fail_rest(faults: Faults, request: Request) -> dict[str, object]:
    query = request.query_params
    failure = RestFailure(
        status=int(query.get("status", "503")),
        sqlstate=query.get("sqlstate", "PGRST000"),
        message=query.get("message", "Database connection error. Retrying the connection."),
        function=query.get("function"),
        retry_after=query.get("retry_after"),
        until=time.monotonic() + _seconds(request),
    )
    faults.fail_rest(query.get("name", ""), failure)
    return {}


def _guarded(keys: Keys, hook: Hook) -> Callable[[Request], Awaitable[Response]]:
    # A coroutine function: Starlette runs plain ones in threads, and the hooks belong to the event loop.
    async def endpoint(request: Request) -> Response:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if keys.service_role not in (request.headers.get("apikey"), bearer):
            return JSONResponse({"message": "the service_role key is needed"}, 401)
        try:
            return JSONResponse({"ok": True} | hook(request))
        except ValueError as error:
            return JSONResponse({"message": str(error)}, 400)

    return endpoint


def _close_code(request: Request) -> int:
    code = int(request.query_params.get("code", "1000"))
    if not _LOWEST_CLOSE_CODE <= code <= _HIGHEST_CLOSE_CODE:
        raise ValueError(f"{code} is not a WebSocket close code")
    return code


def _seconds(request: Request) -> float:
    text = request.query_params.get("seconds")
    if text is None:
        raise ValueError("seconds is missing")
    return float(text)
