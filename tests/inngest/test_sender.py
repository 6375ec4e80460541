"""Sending events, against the stand-in for the event API; and the stand-in, against the official SDK."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import inngest
import pytest
from inngest._internal.errors import Error as SdkError
from pydantic import SecretStr

from priorityd.core.errors import ConfigurationError, InngestKeyRefusedError, TransientError
from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.daemon.inngest.api import open_inngest_api
from priorityd.daemon.inngest.client import make_client
from priorityd.daemon.inngest.sender import open_event_sender
from tests.support.event_api import EVENT_KEY, Faults
from tests.support.inngest import StandIn, numbered
from tests.support.patience import PATIENCE_SECONDS

QUEUE_DOWN = '{"ids": ["0"], "status": 400, "error": "error publishing event: nats: connection closed"}'
"""When its own queue takes nothing (Inngest 253303c, `pkg/api/api.go`, `pkg/pubsub/broker.go`)."""


def numbers(events: Sequence[dict[str, Any]]) -> list[object]:
    return [event["data"]["number"] for event in events]


async def test_sends_in_order_and_tells_each_batch_as_soon_as_it_is_accepted(event_api: StandIn) -> None:
    told: list[int] = []
    async with open_event_sender(event_api.settings()) as sender:
        refused = await sender.send(
            numbered(12_000),
            lambda batch, _: told.append(len(batch)) or None,  # type: ignore[func-returns-value]
        )
    assert refused == []
    assert numbers(event_api.api.accepted) == list(range(12_000))
    assert told == event_api.api.requests
    assert all(len(body) <= 256 * 1024 for body in event_api.api.bodies)
    assert len(told) < 8


async def test_sends_what_it_was_given(event_api: StandIn) -> None:
    data = {"text": "Grüße, 日本", "nested": {"list": [1, 2.5, None, True]}}
    async with open_event_sender(event_api.settings()) as sender:
        await sender.send([OutgoingEvent("capture/it", data, "the-id")])
    (event,) = event_api.api.accepted
    assert (event["name"], event["data"], event["id"]) == ("capture/it", data, "the-id")


async def test_nothing_to_send_is_no_request(event_api: StandIn) -> None:
    async with open_event_sender(event_api.settings()) as sender:
        assert await sender.send([]) == []
    assert event_api.api.attempts == 0


@pytest.mark.parametrize("status", [400, 413])
async def test_a_refused_batch_is_halved_until_the_refused_events_are_found(
    event_api: StandIn, status: int
) -> None:
    events = numbered(100)
    bad = {17, 18, 99}
    for number in bad:
        events[number] = OutgoingEvent("test/event", {"number": number, "poison": True}, f"id-{number}")
    event_api.api.faults = Faults(refuse='"poison":true', refuse_status=status)
    told: list[str] = []
    async with open_event_sender(event_api.settings()) as sender:
        refused = await sender.send(events, lambda batch, _: told.extend(event.id for event in batch))
    assert [item.event.data["number"] for item in refused] == sorted(bad)
    assert all("told to refuse" in item.reason for item in refused)
    assert numbers(event_api.api.runs) == [number for number in range(100) if number not in bad]
    assert told == [event.id for event in events if event.data["number"] not in bad]


async def test_events_that_no_plan_accepts_are_refused_without_a_request(event_api: StandIn) -> None:
    bad = [
        OutgoingEvent("", {}, "1"),
        OutgoingEvent("x" * 257, {}, "2"),
        OutgoingEvent("inngest/function.failed", {}, "3"),
        OutgoingEvent("test/event", {"at": object()}, "4"),
        OutgoingEvent("test/event", {"number": float("nan")}, "5"),
        OutgoingEvent("test/event", {"text": "x" * 3 * 1024 * 1024}, "6"),
    ]
    async with open_event_sender(event_api.settings()) as sender:
        refused = await sender.send([*bad, *numbered(1)])
    assert [item.event.id for item in refused] == ["1", "2", "3", "4", "5", "6"]
    assert event_api.api.attempts == 1


async def test_an_event_too_large_for_the_plan_is_refused_and_the_others_are_sent(event_api: StandIn) -> None:
    large = OutgoingEvent("test/event", {"text": "x" * 300 * 1024}, "large")
    async with open_event_sender(event_api.settings()) as sender:
        refused = await sender.send([*numbered(3), large, OutgoingEvent("test/event", {}, "last")])
    assert [item.event.id for item in refused] == ["large"]
    assert "max size" in refused[0].reason
    assert [event["id"] for event in event_api.api.runs] == ["id-0", "id-1", "id-2", "last"]


@pytest.mark.parametrize(
    "faults",
    [
        Faults(status=503, requests=2),
        Faults(status=503, body='{"message": "no field named error"}', requests=2),
        Faults(status=502, body="<html>Bad gateway</html>", requests=2),
        Faults(status=500, accept=2, requests=1),
        Faults(status=429, retry_after=0.2, requests=2),
        Faults(status=400, body="<html>400 Bad Request</html>", requests=2),
        Faults(status=403, body="<html>Forbidden</html>", requests=2),
        Faults(status=400, body=QUEUE_DOWN, requests=2),
        Faults(reset="before", requests=2),
        Faults(reset="after", requests=2),
    ],
    ids=lambda faults: f"{faults.status or 'reset'} {faults.reset or ''}{faults.body or ''}",
)
async def test_short_trouble_loses_nothing_and_repeats_only_ids(event_api: StandIn, faults: Faults) -> None:
    attempts: list[None] = []
    event_api.api.faults = faults
    async with open_event_sender(event_api.settings(), on_attempt=lambda: attempts.append(None)) as sender:
        assert await sender.send(numbered(5)) == []
    assert numbers(event_api.api.runs) == list(range(5))
    assert len(attempts) == event_api.api.attempts > 1


async def test_gives_up_after_its_attempts_and_says_how_long_it_was_asked_to_wait(
    event_api: StandIn,
) -> None:
    event_api.api.faults = Faults(status=429, retry_after=120)
    async with open_event_sender(event_api.settings()) as sender:
        with pytest.raises(TransientError) as raised:
            await sender.send(numbered(1))
    assert (raised.value.reason, raised.value.retry_after_seconds) == ("rate_limited", 120)
    assert event_api.api.attempts == 1, "asked to wait for longer than a call may take, it does not try again"


async def test_batches_that_were_accepted_before_the_trouble_are_told(event_api: StandIn) -> None:
    told: list[str] = []

    def on_sent(batch: Sequence[OutgoingEvent], _ids: Sequence[str]) -> None:
        told.extend(event.id for event in batch)
        event_api.api.faults = Faults(status=503)

    events = numbered(20, text="x" * 100_000)
    async with open_event_sender(event_api.settings(), max_attempts=1) as sender:
        with pytest.raises(TransientError, match="503"):
            await sender.send(events, on_sent)
    assert told == ["id-0", "id-1"]


async def test_inngest_down_is_transient(event_api: StandIn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    async with open_event_sender(
        event_api.settings(inngest_event_api_base_url=url), max_attempts=1
    ) as sender:
        with pytest.raises(TransientError, match=f"can't be reached at {url}: ") as raised:
            await sender.send(numbered(1))
    assert raised.value.reason == "network"


async def test_inngest_that_never_answers_is_transient(event_api: StandIn) -> None:
    event_api.api.faults = Faults(hang=True)
    async with open_event_sender(event_api.settings(), max_attempts=1, timeout_seconds=0.2) as sender:
        with pytest.raises(TransientError) as raised:
            await sender.send(numbered(1))
    assert raised.value.reason == "timeout"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_said_without_the_key(event_api: StandIn, status: int) -> None:
    event_api.api.faults = Faults(status=status, body=f'{{"error": "no key {EVENT_KEY}"}}')
    async with open_event_sender(event_api.settings()) as sender:
        with pytest.raises(InngestKeyRefusedError, match="INNGEST_EVENT_KEY") as raised:
            await sender.send(numbered(1))
    assert EVENT_KEY not in str(raised.value)
    assert event_api.api.attempts == 1


async def test_what_quotes_the_requests_path_is_said_without_the_key(event_api: StandIn) -> None:
    event_api.api.keys = ("a=key",)
    event_api.api.faults = Faults(status=500, body='{"message": "Cannot POST /e/a%3Dkey"}')
    settings = event_api.settings(inngest_event_key=SecretStr("a=key"))
    async with open_event_sender(settings, max_attempts=1) as sender:
        with pytest.raises(TransientError, match=r"Cannot POST /e/\[redacted\]"):
            await sender.send(numbered(1))

    async with open_inngest_api(settings) as api:
        with pytest.raises(TransientError, match=r"Cannot POST /e/\[redacted\]"):
            await api.check_event_key()


async def test_a_long_answer_is_not_cut_within_the_key(event_api: StandIn) -> None:
    event_api.api.faults = Faults(status=401, body=f'{{"error": "{"x" * 297}{EVENT_KEY}"}}')
    async with open_event_sender(event_api.settings()) as sender:
        with pytest.raises(InngestKeyRefusedError, match=r"x{297}") as raised:
            await sender.send(numbered(1))
    assert EVENT_KEY[:3] not in str(raised.value)


async def test_an_unknown_key_is_refused(event_api: StandIn) -> None:
    settings = event_api.settings(inngest_event_key=SecretStr("another-key"))
    async with open_event_sender(settings) as sender:
        with pytest.raises(InngestKeyRefusedError, match="Event key not found"):
            await sender.send(numbered(1))


async def test_another_server_at_the_address_loses_nothing(event_api: StandIn) -> None:
    event_api.api.faults = Faults(status=404, body="not found")
    async with open_event_sender(event_api.settings(), max_attempts=1) as sender:
        with pytest.raises(TransientError, match="INNGEST_EVENT_API_BASE_URL"):
            await sender.send(numbered(2))
        for body in ("<html>Welcome</html>", "[" * 20_000, "[]", '{"ids": {}}', '{"ids": 7}'):
            event_api.api.faults = Faults(status=200, body=body)
            with pytest.raises(TransientError, match="not understood"):
                await sender.send(numbered(2))


async def test_without_a_key_there_is_no_sender(event_api: StandIn) -> None:
    with pytest.raises(ConfigurationError, match="INNGEST_EVENT_KEY"):
        async with open_event_sender(event_api.settings(inngest_event_key=None)):
            pass


async def test_a_development_server_needs_no_key(event_api: StandIn) -> None:
    event_api.api.keys = ()
    settings = event_api.settings(
        inngest_event_key=None, inngest_event_api_base_url=None, inngest_dev=event_api.url
    )
    async with open_event_sender(settings) as sender:
        await sender.send(numbered(1))
    assert len(event_api.api.accepted) == 1


# The stand-in itself.


@asynccontextmanager
async def official_client(event_api: StandIn) -> AsyncIterator[inngest.Inngest]:
    """The SDK as its users have it, but closed in the end."""
    client = make_client(event_api.settings())
    try:
        yield client
    finally:
        await client._http_client._http_client.aclose()


async def test_the_stand_in_satisfies_the_official_sdk(event_api: StandIn) -> None:
    async with official_client(event_api) as client:
        ids = await client.send([inngest.Event(name="test/event", data={"n": n}) for n in range(3)])
        assert len(set(ids)) == 3
        with pytest.raises(SdkError, match="event name is empty"):
            await client.send(inngest.Event(name=""))


async def test_the_sdk_by_itself_takes_a_failure_without_a_reason_for_a_success(event_api: StandIn) -> None:
    # Why events are not sent by the SDK.
    event_api.api.faults = Faults(status=503, body='{"message": "unavailable"}')
    async with official_client(event_api) as client:
        assert await client.send(inngest.Event(name="test/event")) == []
    assert event_api.api.accepted == []


async def test_the_stand_in_takes_what_the_server_takes(event_api: StandIn) -> None:
    url = f"{event_api.url}/e/{EVENT_KEY}"
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        assert (await client.post(url, json={"name": "one"})).json()["status"] == 200
        assert (await client.post(url, json=[])).status_code == 200
        assert (await client.post(url, content=b'"text"')).status_code == 400
        assert (await client.post(url, content=b"{")).status_code == 400
        assert (await client.get(url)).status_code == 405
        assert (await client.post(f"{event_api.url}/e/")).status_code == 404
        wrong = await client.post(f"{event_api.url}/e/wrong", json=[])
        assert (wrong.status_code, wrong.json()["error"]) == (401, "Event key not found")
        partly = await client.post(url, json=[{"name": "a"}, {"name": "b"}, {"name": ""}, {"name": "c"}])
        assert (partly.status_code, len(partly.json()["ids"])) == (400, 2)
        many = await client.post(url, json=[{"name": "x"}] * 5001)
        assert (many.status_code, len(many.json()["ids"])) == (400, 5000)
        for event in ({"name": 1}, {"name": "x", "data": []}, {"name": "x", "id": 1}, "x"):
            assert (await client.post(url, json=[event])).status_code == 400


async def test_the_stand_in_ignores_repeated_ids(event_api: StandIn) -> None:
    async with open_event_sender(event_api.settings()) as sender:
        await sender.send(numbered(3))
        await sender.send(numbered(4))
    assert len(event_api.api.accepted) == 7
    assert numbers(event_api.api.runs) == [0, 1, 2, 3]
