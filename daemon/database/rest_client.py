"""The HTTP client underneath Supabase's: it adds the current key to every request, and translates errors."""

from __future__ import annotations

import json
from typing import Final

import httpx

from priorityd.core.failures import seconds_asked, translate
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

    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
        event_hooks={"request": [authorize], "response": [_raise_for_error]},
    )


async def _raise_for_error(response: httpx.Response) -> None:
    """Translate here, where status, headers and body are all still known."""
    if response.is_success:
        return
    await response.aread()
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    fields = body if isinstance(body, dict) else {}
    code = fields.get("code")
    message = fields.get("message") or fields.get("error") or response.reason_phrase or "no reason given"
    raise translate(
        response.status_code,
        code if isinstance(code, str) and code else None,
        str(message)[:500],
        hint=str(fields.get("hint") or "")[:500],
        function=response.url.path.rpartition("/rpc/")[2],
        is_supabase=isinstance(fields.get("message"), str),
        retry_after_seconds=seconds_asked(response.headers.get("Retry-After")),
    )
