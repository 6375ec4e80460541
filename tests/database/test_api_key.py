"""Which key is in force, and how long another one is waited for."""

from __future__ import annotations

import anyio
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from priorityd.core.errors import ConfigurationError
from priorityd.daemon.database.api_key import ApiKey, KeyPair, role_of
from priorityd.daemon.database.store import open_store
from priorityd.daemon.sandbox.keys import Keys
from priorityd.daemon.status.http import listen


class Settings:
    """What a file says, and can be made to say."""

    def __init__(self, key: str | Exception, gateway_key: str | None = None) -> None:
        self.key = key
        self.gateway_key = gateway_key

    def read(self) -> KeyPair:
        if isinstance(self.key, Exception):
            raise self.key
        return KeyPair(self.key, self.gateway_key)


def test_the_settings_are_read_again_for_a_refused_key() -> None:
    settings = Settings("old")
    api_key = ApiKey("old", reread=settings.read)
    told: list[KeyPair] = []
    api_key.on_change(told.append)
    assert not api_key.replaced(KeyPair("old"))
    settings.key = "new"
    assert api_key.replaced(KeyPair("old"))
    assert (api_key.key, told) == ("new", [KeyPair("new")])


def test_a_new_gateway_key_is_a_new_key() -> None:
    settings = Settings("token", "old")
    api_key = ApiKey("token", reread=settings.read, gateway_key="old")
    refused = api_key.in_use
    assert not api_key.replaced(refused)
    settings.gateway_key = "new"
    assert api_key.replaced(refused)
    assert (api_key.api_key, api_key.access_token) == ("new", "token")


def test_a_key_that_was_replaced_meanwhile_is_not_doubted_again() -> None:
    settings = Settings("new")
    api_key = ApiKey("old", reread=settings.read)
    assert api_key.reload()
    assert api_key.replaced(KeyPair("old"))
    assert not api_key.reload()


@pytest.mark.parametrize("error", [ConfigurationError("half written"), PermissionError(), ValueError()])
def test_settings_that_can_not_be_read_leave_the_key_as_it_is(error: Exception) -> None:
    api_key = ApiKey("old", reread=Settings(error).read)
    assert not api_key.reload()
    assert api_key.key == "old"


@pytest.mark.parametrize(
    ("key", "role"),
    [
        (Keys.create().service_role, "service_role"),
        (Keys.create().anon, "anon"),
        (Keys.create().sign({"role": "priorityd"}), "priorityd"),
        ("sb_secret_abc", "service_role"),
        ("sb_publishable_abc", "anon"),
        ("nonsense", "service_role"),
        ("a.b.c", "service_role"),
    ],
)
def test_a_key_tells_its_role(key: str, role: str) -> None:
    assert role_of(key) == role


@pytest.mark.parametrize("key", ["sb_secret_abc", "eyJhbGciOi.eyJyb2xlIjoi.c2VydmljZQ"])
async def test_only_a_key_that_is_a_token_is_sent_as_one(key: str) -> None:
    seen: list[httpx.Headers] = []

    async def version(request: Request) -> JSONResponse:
        seen.append(httpx.Headers(request.headers.raw))
        return JSONResponse({"set": 1, "works_from": 1, "units": []})

    path = "/rest/v1/rpc/workspace_priority_schema_version"
    app = Starlette(routes=[Route(path, version, methods=["POST"])])
    with listen("127.0.0.1", 0) as endpoint:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [endpoint])
            async with open_store("http://127.0.0.1:{1}".format(*endpoint.getsockname()), key) as store:
                await store.schema_version()
            server.should_exit = True
    assert seen[0].get_list("apikey") == [key]
    assert seen[0].get_list("authorization") == ([] if key.startswith("sb_") else [f"Bearer {key}"])
