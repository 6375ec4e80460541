"""Inngest's event API: one POST of a JSON array, by plain HTTP.

The SDK's `send` is not used (0.5.19, in its source): it reports an answer's text but not its status, treats
an answer without the field `error` as a success whatever its status, does its own retries regardless of
`Retry-After`, and accepts no HTTP client. Here the caller retries, and every failure is one of our own
errors.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import httpx

from priorityd.core.errors import TransientError
from priorityd.core.failures import seconds_asked
from priorityd.core.inngest.failures import translate_inngest
from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.daemon.settings import Settings

REQUEST_TIMEOUT_SECONDS: Final = 10.0
"""The time-out of one attempt; a batch is at most a quarter of a megabyte."""
_ANY_KEY: Final = "any"  # a development server accepts any key


class EventApi:
    """See the module's docstring. Make one with `open_event_api`.

    The key is in the request's path, so no message may contain an address.
    """

    def __init__(self, http: httpx.AsyncClient, settings: Settings, on_written: Callable[[], None]) -> None:
        key = settings.inngest_event_key
        self._key = key.get_secret_value() if key else _ANY_KEY
        self._quoted_key = quote(self._key, safe="")
        self._url = f"{settings.inngest_event_api_url}/e/{self._quoted_key}"
        self._headers = {"X-Inngest-Env": settings.inngest_env} if settings.inngest_env else {}
        self._http = http
        self._on_written = on_written

    async def post(self, events: Sequence[OutgoingEvent]) -> list[str]:
        """Return once Inngest has accepted all events, with its own ids for them, if it returned any.

        Raises one of `core.errors` for anything else.
        """
        body = [event.body for event in events]
        try:
            response = await self._http.post(
                self._url, json=body, headers=self._headers, extensions={"trace": self._trace}
            )
        except httpx.TimeoutException:
            raise TransientError("Inngest: no answer in time", reason="timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransientError(f"Inngest: {self._clean(error)}", reason="network") from None
        fields = _fields(response)
        if not response.is_success:
            raise translate_inngest(
                response.status_code,
                self._clean(_message(response, fields)),
                retry_after_seconds=seconds_asked(response.headers.get("Retry-After")),
            )
        ids = fields.get("ids")
        if not isinstance(ids, list) or fields.get("error"):
            # A success, but not from the event API: something else answers at its address.
            raise TransientError("Inngest: the answer is not understood", reason="bad_answer")
        return [str(each) for each in ids]

    async def _trace(self, event: str, _: dict[str, Any]) -> None:
        if event.endswith("send_request_body.complete"):
            self._on_written()

    def _clean(self, text: object) -> str:
        words = str(text) or type(text).__name__
        return words.replace(self._key, "[redacted]").replace(self._quoted_key, "[redacted]")


@asynccontextmanager
async def open_event_api(settings: Settings, on_written: Callable[[], None]) -> AsyncIterator[EventApi]:
    """The event API of the settings. `on_written`: a request was sent and its answer is awaited."""
    async with httpx.AsyncClient(timeout=REQUEST_TIMEOUT_SECONDS) as http:
        yield EventApi(http, settings, on_written)


def _fields(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    return body if isinstance(body, dict) else {}


def _message(response: httpx.Response, fields: dict[str, Any]) -> str:
    text = fields.get("error") or fields.get("message") or response.reason_phrase or "no reason given"
    return str(text)[:300]
