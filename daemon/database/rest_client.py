"""The HTTP client underneath Supabase's: it adds the current key to every request, and translates errors."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx

from priorityd.core.failures import seconds_asked, translate
from priorityd.daemon.bounded_client import BoundedClient
from priorityd.daemon.database.api_key import ApiKey

_CONNECT_SECONDS: Final = 5.0


def open_http(api_key: ApiKey) -> httpx.AsyncClient:
    """A client to be used as a context manager; only connecting has a time-out.

    Proxies and certificates come from the variables that httpx reads: HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE
    and the like. An unsuccessful answer raises one of `core.errors`.
    """

    async def authorize(request: httpx.Request) -> None:
        # Send the current key, in the headers for its kind, whatever key the Supabase client was made with.
        request.headers["apikey"] = api_key.api_key
        request.headers.pop("authorization", None)
        if api_key.access_token is not None:
            request.headers["authorization"] = f"Bearer {api_key.access_token}"

    return _Client(
        timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS), event_hooks={"request": [authorize]}
    )


class _Client(BoundedClient):
    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        response = await super().send(request, stream=stream, **options)
        _raise_for_error(response)
        return response


def _raise_for_error(response: httpx.Response) -> None:
    """Translate here, where status, headers and body are all still known."""
    if response.is_success:
        return
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    fields = body if isinstance(body, dict) else {}
    code = fields.get("code")
    said = (fields.get("message"), fields.get("error"), response.reason_phrase)
    message = next((each for each in said if isinstance(each, str) and each), "no reason given")
    raise translate(
        response.status_code,
        code if isinstance(code, str) and code else None,
        message[:500],
        hint=str(fields.get("hint") or "")[:500],
        function=response.url.path.rpartition("/rpc/")[2],
        is_supabase=isinstance(fields.get("message"), str),
        retry_after_seconds=seconds_asked(response.headers.get("Retry-After")),
    )
