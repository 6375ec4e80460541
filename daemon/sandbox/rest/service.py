"""The REST service of the sandbox: from the gateway and the token to the answer."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from priorityd.daemon.sandbox.keys import Keys, is_opaque
from priorityd.daemon.sandbox.rest.errors import ApiError, gateway_refusal
from priorityd.daemon.sandbox.rest.pool import Pool
from priorityd.daemon.sandbox.rest.rpc import Call, Result, execute
from priorityd.daemon.sandbox.rest.schema_cache import SchemaCache
from priorityd.daemon.sandbox.rest.tables import Caller, use_table
from priorityd.daemon.sandbox.rest.tokens import caller

if TYPE_CHECKING:
    from starlette.requests import Request

    from priorityd.daemon.sandbox.faults import Faults
    from priorityd.daemon.sandbox.rest.schema_cache import Function

_JSON = "application/json; charset=utf-8"
_SINGLE_OBJECT = "application/vnd.pgrst.object+json"
_READING = ("GET", "HEAD")


class Rest:
    """Answers `/rest/v1/*`; functions can be called while `run` keeps the schema cache."""

    def __init__(self, database_url: str, keys: Keys, faults: Faults) -> None:
        self._keys = keys
        self._faults = faults
        self._pool = Pool(database_url)
        self._cache = SchemaCache(database_url)

    async def run(self) -> None:
        """Keep the schema cache until cancelled."""
        try:
            await self._cache.run()
        finally:
            await asyncio.shield(self._pool.close())

    async def ready(self) -> None:
        """Return when calls can be answered."""
        await self._cache.loaded()

    async def call_function(self, request: Request) -> Response:
        """`POST`, `GET` or `HEAD /rest/v1/rpc/{function}`."""
        refusal = self._gateway(request)
        if refusal is not None:
            return refusal
        try:
            return await self._call(request)
        except ApiError as error:
            return error.response()

    async def use_table(self, request: Request) -> Response:
        """`/rest/v1/{table}`."""
        refusal = self._gateway(request)
        if refusal is not None:
            return refusal
        try:
            role, claims = self._caller(request)
            _check_schema(request)
            who = Caller(role, claims, self._cache.role_settings(role))
            return await use_table(self._pool, who, request)
        except ApiError as error:
            return error.response()

    async def anything_else(self, request: Request) -> Response:
        """Any other path under `/rest/v1`."""
        refusal = self._gateway(request)
        if refusal is not None:
            return refusal
        hint = "This sandbox serves /rest/v1/<table> and /rest/v1/rpc/<function> only."
        return ApiError(404, "PGRST125", "Invalid path specified in request URL", None, hint).response()

    def _gateway(self, request: Request) -> Response | None:
        key = request.headers.get("apikey") or request.query_params.get("apikey")
        if not key:
            return gateway_refusal(
                "No API key found in request", "No `apikey` request header or url param was found."
            )
        if self._keys.token_of(key) is None:
            return gateway_refusal(
                "Invalid API key", "Double check your Supabase `anon` or `service_role` API key."
            )
        return None

    async def _call(self, request: Request) -> Response:
        role, claims = self._caller(request)
        if request.method not in {*_READING, "POST"}:
            raise ApiError(405, "PGRST101", f"Cannot use the {request.method} method on RPC")
        _check_schema(request)
        name = request.path_params["function"]
        self._meet_failure(name)
        arguments = await _arguments(request)
        function = self._cache.find(name, set(arguments))
        call = Call(
            function=function,
            arguments=_typed(function, arguments) if request.method in _READING else arguments,
            role=role,
            claims=claims,
            settings=self._cache.role_settings(role),
            read_only=request.method in _READING or not function.is_volatile,
        )
        return _answer(request, function, await self._execute(call))

    async def _execute(self, call: Call) -> Result:
        try:
            return await execute(self._pool, call)
        except ApiError as error:
            if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
                self._cache.doubt()
            raise

    def _caller(self, request: Request) -> tuple[str, dict[str, Any]]:
        """The caller's role and claims; anon without a token.

        If the key is not a token, the gateway adds one, unless the caller sends its own. Such a key in place
        of a token is passed on and refused, as Supabase's page on API keys says.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme and is_opaque(key := request.headers.get("apikey", "")):
            token = self._keys.token_of(key) or ""
        elif scheme.lower() != "bearer":
            return "anon", {"role": "anon"}
        return caller(self._keys, token.strip())

    def _meet_failure(self, function: str) -> None:
        failure = self._faults.rpc_failure(function)
        if failure is not None:
            raise failure


def _check_schema(request: Request) -> None:
    header = "accept-profile" if request.method in _READING else "content-profile"
    schema = request.headers.get(header, "public")
    if schema != "public":
        hint = "Only the following schemas are exposed: public"
        raise ApiError(406, "PGRST106", f"Invalid schema: {schema}", None, hint)


async def _arguments(request: Request) -> dict[str, Any]:
    query = {name: value for name, value in request.query_params.items() if name != "apikey"}
    if request.method in _READING:
        return query
    if query:
        shown = ", ".join(sorted(query))
        raise ApiError(400, "PGRST100", f"This sandbox has no filters on results: {shown}")
    return _body(request.headers.get("content-type", "application/json"), await request.body())


def _body(content_type: str, body: bytes) -> dict[str, Any]:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(400, "PGRST102", f"Content-Type not acceptable: {media_type}")
    try:
        arguments = json.loads(body or b"{}")
    except ValueError as error:
        raise ApiError(400, "PGRST102", "Empty or invalid json") from error
    if not isinstance(arguments, dict):
        raise ApiError(400, "PGRST102", "Empty or invalid json")
    return arguments


def _typed(function: Function, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments from a query string are text, so those of type json must be parsed."""
    types = function.type_of
    return {
        name: _parsed(value, types[name]) if types[name] in {"json", "jsonb"} else value
        for name, value in arguments.items()
    }


def _parsed(value: str, type_name: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise ApiError(400, "22P02", f"invalid input syntax for type {type_name}") from error


def _answer(request: Request, function: Function, result: Result) -> Response:
    if result.text is None:
        return Response(status_code=204)
    text = result.text
    wants_object = _SINGLE_OBJECT in request.headers.get("accept", "")
    if wants_object and function.returns_set:
        text = _single(text, result.rows)
    headers = {"Content-Range": f"0-{result.rows - 1}/*" if result.rows else "*/*"}
    media_type = f"{_SINGLE_OBJECT}; charset=utf-8" if wants_object else _JSON
    return Response("" if request.method == "HEAD" else text, 200, headers, media_type)


def _single(text: str, rows: int) -> str:
    if rows != 1:
        message = "Cannot coerce the result to a single JSON object"
        raise ApiError(406, "PGRST116", message, f"The result contains {rows} rows")
    return json.dumps(json.loads(text)[0])
