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

from priorityd.core.errors import PriorityError, TransientError
from priorityd.core.failures import seconds_asked
from priorityd.core.inngest.failures import translate_inngest
from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.daemon.bounded_client import BoundedClient
from priorityd.daemon.settings import Settings

REQUEST_TIMEOUT_SECONDS: Final = 10.0
"""The time-out of one attempt; a batch is at most a quarter of a megabyte."""
_ANY_KEY: Final = "any"  # a development server accepts any key


class EventApi:
    """See the module's docstring. Make one with `open_event_api`.

    The key is in the request's path, so no message may contain the whole address.
    """

    def __init__(self, http: httpx.AsyncClient, settings: Settings, on_written: Callable[[], None]) -> None:
        self._settings = settings
        self._origin = settings.inngest_event_api_url
        self._url = f"{self._origin}{event_path(settings)}"
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
            text = f"Inngest at {self._origin} did not answer in time"
            raise TransientError(text, reason="timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = without_event_key(str(error) or type(error).__name__, self._settings)
            text = f"Inngest can't be reached at {self._origin}: {said}"
            raise TransientError(text, reason="network") from None
        if not response.is_success:
            raise error_of(response, self._settings)
        fields = _fields(response)
        ids = fields.get("ids")
        if not isinstance(ids, list) or fields.get("error"):
            # A success, but not the event API's: something else answers at its address.
            text = f"what {self._origin} answers is not understood; is it Inngest's event API?"
            raise TransientError(text, reason="bad_answer")
        return [str(each) for each in ids]

    async def _trace(self, event: str, _: dict[str, Any]) -> None:
        if event.endswith("send_request_body.complete"):
            self._on_written()


@asynccontextmanager
async def open_event_api(settings: Settings, on_written: Callable[[], None]) -> AsyncIterator[EventApi]:
    """The event API of the settings. `on_written`: a request was sent and its answer is awaited."""
    async with BoundedClient(timeout=REQUEST_TIMEOUT_SECONDS) as http:
        yield EventApi(http, settings, on_written)


def event_path(settings: Settings) -> str:
    """The path of the event API, which contains the key."""
    key = settings.inngest_event_key
    return f"/e/{quote(key.get_secret_value() if key else _ANY_KEY, safe='')}"


def without_event_key(text: str, settings: Settings) -> str:
    """The text with the event key taken out, also in the form that it has in the path."""
    if settings.inngest_event_key is None:
        return text
    key = settings.inngest_event_key.get_secret_value()
    return text.replace(key, "[redacted]").replace(quote(key, safe=""), "[redacted]")


def error_of(response: httpx.Response, settings: Settings) -> PriorityError:
    """What an unsuccessful answer of the event API means."""
    fields = _fields(response)
    return translate_inngest(
        response.status_code,
        without_event_key(_message(response, fields), settings)[:300],
        is_inngests=isinstance(fields.get("error"), str),
        retry_after_seconds=seconds_asked(response.headers.get("Retry-After")),
    )


def _fields(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    return body if isinstance(body, dict) else {}


def _message(response: httpx.Response, fields: dict[str, Any]) -> str:
    text = fields.get("error") or fields.get("message") or response.reason_phrase or "no reason given"
    return str(text)
