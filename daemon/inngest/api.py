"""Queries to Inngest's API.

- Its REST API v2 (in the cloud, in a self-hosted server and in the development server alike) lists apps and
  their functions with the configuration of each, `priority.run` among it. It takes the signing key as a
  bearer token; the development server needs none. Source: `proto/api/v2/service.proto` of Inngest's
  open-source server, and the page "Authentication" of its API's documentation. The endpoints are marked as
  beta there, and older servers lack them. Names of enumerations lose their prefix in its answers
  (`pkg/api/v2/enum_json.go`): a trigger's type is `EVENT` or `CRON`.
- `/v1/events/{id}/runs` lists the runs that an event has started, by the id that the event API answered: an
  internal one, a ULID; a repeated event gets another one, which has no run. Source: `getEventRuns`
  in `pkg/api/apiv1/events.go`, `pkg/cqrs/manager/cqrs.go` and `pkg/enums/runstatus_enumer.go` of 253303c
  (August 2026).
- The event API answers an empty list of events without taking anything, and refuses a wrong key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from priorityd.core.errors import InngestKeyRefusedError, PermanentError, TransientError
from priorityd.daemon.bounded_client import BoundedClient
from priorityd.daemon.inngest.event_api import error_of, event_path
from priorityd.daemon.settings import Settings

_TIMEOUT_SECONDS: Final = 10.0
_PAGE_SIZE: Final = 100
_MAX_PAGES: Final = 100
_EVENT_TRIGGER: Final = "EVENT"

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class InngestFunction:
    """A function as Inngest has it; `run_priority` is its `priority.run`."""

    app_id: str
    id: str
    events: tuple[str, ...]
    run_priority: str | None


class _App(BaseModel):
    id: str


class _Trigger(BaseModel):
    type: str = ""
    value: str = ""


class _Configuration(BaseModel):
    priority: str | None = None


class _Function(BaseModel):
    id: str
    triggers: list[_Trigger] | None = None
    configuration: _Configuration | None = None


class _Place(BaseModel):
    cursor: str | None = None


class _Page(BaseModel, Generic[Item]):
    data: list[Item] | None = None
    page: _Place | None = None


class _Run(BaseModel):
    status: str


class InngestApi:
    """See the module's docstring. Make one with `open_inngest_api`."""

    def __init__(self, http: httpx.AsyncClient, settings: Settings) -> None:
        self._http = http
        self._settings = settings

    async def check_event_key(self) -> None:
        """Check the event key by sending no events.

        Raises `InngestKeyRefusedError`, or `TransientError` if the event API can't be reached.
        """
        settings = self._settings
        response = await self._request("POST", settings.inngest_event_api_url, event_path(settings), json=[])
        if not response.is_success:
            raise error_of(response, settings)

    async def functions(self) -> list[InngestFunction]:
        """Every function of every app.

        Raises `InngestKeyRefusedError`; `PermanentError` if this server can't list them; `TransientError`.
        """
        found = []
        async for app in self._all(_Page[_App], "/v2/apps"):
            path = f"/v2/apps/{quote(app.id, safe='')}/functions"
            async for each in self._all(_Page[_Function], path):
                events = tuple(t.value for t in each.triggers or () if t.type == _EVENT_TRIGGER)
                priority = each.configuration.priority if each.configuration else None
                found.append(InngestFunction(app.id, each.id, events, priority or None))
        return found

    async def run_statuses(self, event_id: str) -> list[str]:
        """The statuses of the runs that an event has started; `event_id` is Inngest's own id of the event.

        Raises `InngestKeyRefusedError`; `PermanentError` if this server can't list runs; `TransientError`.
        """
        page = await self._page(_Page[_Run], f"/v1/events/{quote(event_id, safe='')}/runs", {})
        return [run.status for run in page.data or ()]

    async def _all(self, kind: type[_Page[Item]], path: str) -> AsyncIterator[Item]:
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            parameters: dict[str, str | int] = {"limit": _PAGE_SIZE} | ({"cursor": cursor} if cursor else {})
            page = await self._page(kind, path, parameters)
            for item in page.data or ():
                yield item
            cursor = page.page.cursor if page.page else None
            if not cursor:
                return

    async def _page(
        self, kind: type[_Page[Item]], path: str, parameters: dict[str, str | int]
    ) -> _Page[Item]:
        origin = self._settings.inngest_api_url
        response = await self._request("GET", origin, path, params=parameters, headers=self._headers)
        if response.status_code in (401, 403):
            raise InngestKeyRefusedError(
                f"Inngest refused the signing key (INNGEST_SIGNING_KEY, {response.status_code})"
            )
        if response.status_code in (404, 405, 501):
            what = "functions" if path.startswith("/v2/") else "runs"
            text = f"This Inngest does not list {what} ({response.status_code})"
            raise PermanentError(text, reason="rejected")
        try:
            return kind.model_validate_json(response.raise_for_status().content)
        except (httpx.HTTPStatusError, ValidationError):
            status = f"Inngest's answer with status {response.status_code} is not understood"
            raise TransientError(status, reason="bad_answer") from None

    async def _request(self, method: str, origin: str, path: str, **options: Any) -> httpx.Response:
        # The event key is part of the path, so no message may contain the path.
        try:
            return await self._http.request(method, f"{origin}{path}", **options)
        except httpx.TimeoutException:
            raise TransientError(f"Inngest at {origin} did not answer in time", reason="timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            text = f"Inngest can't be reached at {origin}: {type(error).__name__}"
            raise TransientError(text, reason="network") from None

    @property
    def _headers(self) -> dict[str, str]:
        key, environment = self._settings.inngest_signing_key, self._settings.inngest_env
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        return headers | ({"X-Inngest-Env": environment} if environment else {})


@asynccontextmanager
async def open_inngest_api(settings: Settings) -> AsyncIterator[InngestApi]:
    """The API of the settings' Inngest."""
    async with BoundedClient(total_seconds=_TIMEOUT_SECONDS, timeout=_TIMEOUT_SECONDS) as http:
        yield InngestApi(http, settings)
