"""The way to Supabase by the standard variables: proxies, and certificates of a private authority."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.daemon_process import eventually, start_daemon
from tests.support.network import connect_proxy, tls_in_front_of
from tests.support.stack import NO_TIMER, Stack

_PASSWORD = "not-for-the-log"


def _port(stack: Stack) -> int:
    port = urlsplit(stack.server.url).port
    assert port is not None
    return port


async def test_calls_and_stream_go_through_the_proxy_and_trust_the_bundle(
    stack: Stack, tmp_path: Path
) -> None:
    app, repository = stack.app, stack.app.repository()
    credentials = base64.b64encode(f"daemon:{_PASSWORD}".encode()).decode()
    async with (
        connect_proxy(credentials) as (proxy, targets),
        tls_in_front_of(_port(stack), tmp_path) as (tls, bundle),
    ):
        settings = stack.settings | {
            "SUPABASE_URL": f"https://localhost:{tls}",
            "HTTPS_PROXY": f"http://daemon:{_PASSWORD}@127.0.0.1:{proxy}",
            "SSL_CERT_FILE": bundle,
            "PRIORITYD_LOG_LEVEL": "debug",
        }
        async with start_daemon(**settings, **NO_TIMER) as daemon:
            app.add(app.workspace(), repository)
            await eventually(lambda: app.row(repository)[0] == "high")
            assert set(targets) == {f"CONNECT localhost:{tls}"}
            assert len(targets) >= 2, "one for calls and one for the stream at least"
        assert _PASSWORD not in str(daemon.logs)
        code, out, _ = await stack.priorityd("check", **settings)
        assert code == 0, out


async def test_no_proxy_leaves_it_out(stack: Stack, tmp_path: Path) -> None:
    async with connect_proxy() as (proxy, targets), tls_in_front_of(_port(stack), tmp_path) as (tls, bundle):
        settings = stack.settings | {
            "SUPABASE_URL": f"https://localhost:{tls}",
            "HTTPS_PROXY": f"http://127.0.0.1:{proxy}",
            "NO_PROXY": "localhost",
            "SSL_CERT_FILE": bundle,
        }
        async with start_daemon(**settings):
            assert targets == []


async def test_a_proxy_that_refuses_is_waited_for_and_its_password_is_not_shown(
    stack: Stack, tmp_path: Path
) -> None:
    async with (
        connect_proxy("other") as (proxy, _),
        tls_in_front_of(_port(stack), tmp_path) as (tls, _),
    ):
        url = f"http://daemon:{_PASSWORD}@127.0.0.1:{proxy}"
        settings = stack.settings | {"SUPABASE_URL": f"https://localhost:{tls}", "HTTPS_PROXY": url}
        async with start_daemon(ready=False, **settings) as daemon:
            error = (await eventually(lambda: daemon.logged("start_delayed")))[0]["error"]
            assert await daemon.answers("/livez", 200)
        assert "407" in error
        assert _PASSWORD not in str(daemon.logs)


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(stack: Stack, tmp_path: Path) -> None:
    async with tls_in_front_of(_port(stack), tmp_path) as (tls, _):
        settings = stack.settings | {"SUPABASE_URL": f"https://localhost:{tls}"}
        async with start_daemon(ready=False, **settings) as daemon:
            error = (await eventually(lambda: daemon.logged("start_delayed")))[0]["error"]
        assert "CERTIFICATE_VERIFY_FAILED" in error
        code, out, _ = await stack.priorityd("check", **settings)
        assert (code, "FAILED   Supabase URL" in out) == (69, True)
