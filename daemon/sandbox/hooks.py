"""The HTTP side of `faults`: `POST /sandbox/v1/…`, for the holder of the service_role key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

    from daemon.sandbox.faults import Faults
    from daemon.sandbox.keys import Keys

Hook = Callable[["Request"], dict[str, object]]
_LOWEST_CLOSE_CODE, _HIGHEST_CLOSE_CODE = 1000, 4999


def hook_routes(
    keys: Keys, faults: Faults, close_sockets: Callable[[int], int], abort_sockets: Callable[[], int]
) -> list[Route]:
    """The routes, as the table in `faults` documents them."""

    def close(request: Request) -> dict[str, object]:
        return {"closed": close_sockets(_close_code(request))}

    def abort(_: Request) -> dict[str, object]:
        return {"aborted": abort_sockets()}

    def silence(request: Request) -> dict[str, object]:
        faults.silence(_seconds(request))
        return {}

    def refuse(request: Request) -> dict[str, object]:
        faults.refuse(_seconds(request))
        return {}

    def fail(request: Request) -> dict[str, object]:
        query = request.query_params
        faults.fail_rest(
            status=int(query.get("status", "503")),
            seconds=_seconds(request),
            function=query.get("function"),
            sqlstate=query.get("sqlstate", "PGRST000"),
            message=query.get("message", "Database connection error. Retrying the connection."),
        )
        return {}

    hooks = {
        "realtime/close": close,
        "realtime/abort": abort,
        "realtime/silence": silence,
        "realtime/refuse": refuse,
        "rest/fail": fail,
    }
    return [
        Route(f"/sandbox/v1/{path}", _guarded(keys, hook), methods=["POST"]) for path, hook in hooks.items()
    ]


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
