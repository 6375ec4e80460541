"""The stand-in for the event API, and settings that point to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.daemon.settings import Settings
from tests.support.event_api import EVENT_KEY, EventApi, serve_event_api


@dataclass
class StandIn:
    """The event API and its URL."""

    url: str
    api: EventApi = field(default_factory=EventApi)

    def settings(self, **changes: object) -> Settings:
        values = {
            "supabase_url": "http://127.0.0.1:1",
            "supabase_key": SecretStr("no-key"),
            "inngest_event_key": SecretStr(EVENT_KEY),
            "inngest_event_api_base_url": self.url,
            "inngest_api_base_url": self.url,
        }
        return Settings(**(values | changes), _env_file=None)  # type: ignore[arg-type]


@pytest.fixture
async def event_api() -> AsyncIterator[StandIn]:
    api = EventApi()
    async with serve_event_api(api) as url:
        yield StandIn(url, api)


def numbered(count: int, **data: object) -> list[OutgoingEvent]:
    return [
        OutgoingEvent("test/event", {"number": number, **data}, f"id-{number}") for number in range(count)
    ]
