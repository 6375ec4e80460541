"""Keys, tokens and roles behind Supabase's gateway."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx

from priorityd.daemon.sandbox.keys import Keys
from tests.support.daemon_process import PLAIN
from tests.support.patience import PATIENCE_SECONDS
from tests.support.rest_calls import Api

if TYPE_CHECKING:
    from tests.support.servers import Servers


async def test_the_role_and_the_claims_are_those_of_the_token(api: Api, anon: Api, sandbox: Servers) -> None:
    answer = (await api.call("who")).json()
    assert (answer["role"], answer["claims"]["iss"]) == ("service_role", "supabase-sandbox")
    assert (await anon.call("who")).json()["role"] == "anon"
    user = sandbox.keys.sign({"role": "authenticated", "sub": "me", "exp": int(time.time()) + 60})
    answer = (await anon.call("who", Authorization=f"Bearer {user}")).json()
    assert (answer["role"], answer["claims"]["sub"]) == ("authenticated", "me")


async def test_without_a_bearer_token_the_caller_is_anon(api: Api) -> None:
    answer = await api.call("who", Authorization="")
    assert answer.json()["role"] == "anon"


async def test_the_gateway_wants_one_of_the_two_keys(api: Api, sandbox: Servers) -> None:
    wrong = await api.call("who", apikey=Keys.create().service_role)
    assert wrong.status_code == 401
    assert wrong.json()["message"] == "Invalid API key"
    async with httpx.AsyncClient(base_url=sandbox.url, verify=PLAIN, timeout=PATIENCE_SECONDS) as http:
        missing = await http.post("/rest/v1/rpc/who")
    assert (missing.status_code, missing.json()["message"]) == (401, "No API key found in request")


async def test_the_gateway_puts_a_token_in_the_place_of_a_key_that_is_none(
    api: Api, sandbox: Servers
) -> None:
    keys = sandbox.keys
    async with httpx.AsyncClient(base_url=sandbox.url, verify=PLAIN, timeout=PATIENCE_SECONDS) as http:

        async def call(key: str, **headers: str) -> httpx.Response:
            return await http.post("/rest/v1/rpc/who", headers={"apikey": key, **headers})

        assert (await call(sandbox.secret_key)).json()["role"] == "service_role"
        assert (await call(keys.publishable)).json()["role"] == "anon"
        user = keys.sign({"role": "authenticated", "sub": "me", "exp": int(time.time()) + 60})
        answer = await call(keys.publishable, Authorization=f"Bearer {user}")
        assert answer.json()["role"] == "authenticated"
        as_token = await call(sandbox.secret_key, Authorization=f"Bearer {sandbox.secret_key}")
        assert (as_token.status_code, as_token.json()["message"]) == (401, "Expected 3 parts in JWT; got 1")
        another = keys.create_secret_key()
        keys.delete_secret_key(sandbox.secret_key)
        assert (await call(another)).json()["role"] == "service_role"
        keys.delete_secret_key(another)
        assert (await call(another)).json()["message"] == "Invalid API key"


async def test_bad_tokens_are_401_with_the_reason(api: Api, sandbox: Servers) -> None:
    now = int(time.time())
    sign = sandbox.keys.sign
    expired = sign({"role": "service_role", "exp": now - 40})
    unknown = sign({"role": "nosuchrole", "exp": now + 60})
    stranger = Keys.create().service_role
    for token, code, message in (
        (expired, "PGRST303", "JWT expired"),
        (sign({"nbf": now + 40}), "PGRST303", "JWT not yet valid"),
        (sign({"iat": now + 40}), "PGRST303", "JWT issued at future"),
        (sign({"exp": "soon"}), "PGRST303", "The JWT 'exp' claim must be a number"),
        (stranger, "PGRST301", "No suitable key or wrong key type"),
        ("abc", "PGRST301", "Expected 3 parts in JWT; got 1"),
        (unknown, "22023", 'role "nosuchrole" does not exist'),
    ):
        response = await api.call("who", Authorization=f"Bearer {token}")
        assert (response.status_code, response.json()["code"]) == (401, code)
        assert response.json()["message"] == message


async def test_tokens_are_taken_half_a_minute_off_and_without_expiry_or_role(
    api: Api, sandbox: Servers
) -> None:
    now, sign = int(time.time()), sandbox.keys.sign
    for token, role in (
        (sign({"role": "service_role", "exp": now - 20}), "service_role"),
        (sign({"role": "service_role", "iat": now + 20, "nbf": now + 20}), "service_role"),
        (sign({"sub": "me"}), "anon"),
    ):
        answer = await api.call("who", Authorization=f"Bearer {token}")
        assert (answer.status_code, answer.json()["role"], answer.json()["claims"]["role"]) == (
            200,
            role,
            role,
        )
