"""Keys and tokens at Realtime's handshake and at a join."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidStatus

from priorityd.daemon.sandbox.keys import Keys
from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings
from tests.sandbox.client import add_membership, binding, connect, socket_url
from tests.support.faults import misbehave
from tests.support.servers import start_servers

if TYPE_CHECKING:
    from tests.support.database import Database
    from tests.support.servers import Servers


async def test_a_key_that_is_no_token_joins_with_its_own_role(sandbox: Servers, database: Database) -> None:
    for token in (None, sandbox.secret_key):
        async with connect(sandbox, sandbox.secret_key) as client:
            await client.join_live(binding(), token=token)
            add_membership(database.connect(), "seen")
            assert (await client.change())["record"]["notes"] == "seen"


async def test_keys_that_the_gateway_does_not_know_are_401_at_once(database: Database) -> None:
    async with start_servers(
        database.url, settings=RealtimeSettings(handshake_refusal_seconds=60)
    ) as sandbox:
        keys, now = sandbox.keys, int(time.time())
        for key in (
            "",
            "garbage",
            Keys.create().service_role,
            Keys.create().create_secret_key(),
            keys.sign({"role": "service_role", "exp": now + 60}),
        ):
            assert await refused(sandbox, key) == (401, {"message": "Invalid authentication credentials"})


async def test_keys_that_realtime_refuses_are_401_after_a_while(database: Database) -> None:
    keys, now = Keys.create(), int(time.time())
    texts = {
        Keys.create().service_role: "Failed to validate JWT signature",
        "garbage": "The token provided is not a valid JWT",
        keys.sign({"role": "service_role", "exp": now - 60}): "Token has expired",
        keys.sign({"role": "service_role"}): "Fields `role` and `exp` are required in JWT",
    }
    for key, text in texts.items():
        async with start_servers(database.url, keys=replace(keys, service_role=key)) as sandbox:
            began = time.monotonic()
            assert await refused(sandbox, key) == (401, {"error": text})
            assert time.monotonic() - began >= RealtimeSettings().handshake_refusal_seconds


async def test_a_project_that_may_not_use_realtime_is_403(sandbox: Servers) -> None:
    misbehave(sandbox, "realtime/disable?seconds=60")
    answer = await refused(sandbox, sandbox.service_role_key)
    assert answer == (403, {"error": "Realtime was disabled for this tenant"})
    misbehave(sandbox, "realtime/disable?seconds=0")
    async with connect(sandbox) as client:
        assert await client.sync() == []


async def refused(sandbox: Servers, key: str) -> tuple[int, object]:
    """The status and the body that the handshake is answered with."""
    with pytest.raises(InvalidStatus) as refusal:
        async with open_websocket(socket_url(sandbox, key)):
            pass
    return refusal.value.response.status_code, json.loads(refusal.value.response.body)
