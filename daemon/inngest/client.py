"""The `inngest` SDK's client, made from our settings.

Facts about the SDK (0.5.19, in its source) that shape this and what uses it:

- It reads its variables from the environment only. Our settings also come from `.env` and from files of
  secrets, so everything is passed to it, in its own order of precedence.
- Without INNGEST_DEV it is in cloud mode. In development mode any event key will do.
- `send` tells an answer's text but not its status, takes an answer without the field `error` for a success
  whatever its status, and by itself repeats transport errors and 5xx five times within seconds, whatever
  `Retry-After` says. It can't be given an HTTP client. So its own is replaced here by one that raises our
  errors, which `send` lets through: the retries are ours, and every failure is translated in one place.
- It never closes its HTTP client.
- A number as `request_timeout` is milliseconds; a `timedelta` is unmistakable.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import httpx
import inngest
from inngest._internal.errors import Error as SdkError
from inngest._internal.net import ThreadAwareAsyncHTTPClient

from priorityd.core.errors import TransientError
from priorityd.core.inngest.failures import translate_inngest
from priorityd.daemon.settings import Settings

__all__ = ["APP_ID", "REQUEST_TIMEOUT_SECONDS", "SdkError", "make_client", "open_client"]

APP_ID: Final = "priorityd"
REQUEST_TIMEOUT_SECONDS: Final = 10.0
"""For one attempt; a batch is at most a quarter of a megabyte."""
_NO_EVENT_KEY: Final = "NO_EVENT_KEY_SET"  # what the SDK sends to a development server


def make_client(settings: Settings) -> inngest.Inngest:
    """An SDK client that knows our settings and nothing of the environment's."""
    dev = settings.inngest_is_dev
    event_key = settings.inngest_event_key
    signing_key = settings.inngest_signing_key
    return inngest.Inngest(
        app_id=APP_ID,
        is_production=not dev,
        event_key=event_key.get_secret_value() if event_key else _NO_EVENT_KEY if dev else None,
        signing_key=signing_key.get_secret_value() if signing_key else None,
        env=settings.inngest_env,
        api_base_url=settings.inngest_api_url,
        event_api_base_url=settings.inngest_event_api_url,
        request_timeout=timedelta(seconds=REQUEST_TIMEOUT_SECONDS),
        logger=logging.getLogger("inngest"),
    )


@asynccontextmanager
async def open_client(
    settings: Settings, on_written: Callable[[], None] = lambda: None
) -> AsyncIterator[inngest.Inngest]:
    """A client whose `send` raises `core.errors` for every failure of transport or status.

    `on_written` is called when a request has left and its answer is waited for.
    """
    client = make_client(settings)
    http = client._http_client  # noqa: SLF001 - there is no public way to give it an HTTP client
    await http._http_client.aclose()  # noqa: SLF001 - it is replaced below
    secret = client.event_key or ""
    http._http_client = _RaisingClient(secret, on_written).initialize()  # noqa: SLF001 - as above
    try:
        yield client
    finally:
        await http._http_client.aclose()  # noqa: SLF001
        http._http_client_sync.close()  # noqa: SLF001


class _RaisingClient(ThreadAwareAsyncHTTPClient):
    """Raises `core.errors` where httpx raises its own or an answer is no success.

    The key is in the request's path, so no message may hold an address.
    """

    def __init__(self, secret: str, on_written: Callable[[], None]) -> None:
        super().__init__(timeout=REQUEST_TIMEOUT_SECONDS, follow_redirects=False)
        self._secret = secret
        self._on_written = on_written

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send, and return only what is a success."""
        request.extensions["trace"] = self._trace
        try:
            response = await super().send(request, **options)
        except httpx.TimeoutException:
            raise TransientError("Inngest: no answer in time", reason="timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransientError(f"Inngest: {self._clean(error)}", reason="network") from None
        if response.is_success:
            return response
        raise translate_inngest(
            response.status_code,
            self._clean(_message(response)),
            retry_after_seconds=_retry_after(response),
        )

    async def _trace(self, event: str, _: dict[str, Any]) -> None:
        if event.endswith("send_request_body.complete"):
            self._on_written()

    def _clean(self, text: object) -> str:
        words = str(text) or type(text).__name__
        return words.replace(self._secret, "[redacted]") if self._secret else words


def _message(response: httpx.Response) -> str:
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    fields = body if isinstance(body, dict) else {}
    text = fields.get("error") or fields.get("message") or response.reason_phrase or "no reason given"
    return str(text)[:300]


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
