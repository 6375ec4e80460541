"""Both kinds of keys, and their rotation while the daemon runs, starts, or waits."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from priorityd.daemon.sandbox.keys import Keys
from tests.support.application import Application
from tests.support.daemon_process import Daemon, eventually, free_port, start_daemon
from tests.support.database import Database
from tests.support.faults import misbehave
from tests.support.servers import start_servers
from tests.support.stack import NO_TIMER, Stack


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


def write_key(secrets: Path, key: str, name: str = "SUPABASE_SECRET_KEY") -> None:
    """As operators do it: a new file, put in the old one's place at once."""
    secrets.mkdir(exist_ok=True)
    new = secrets / "new"
    new.write_text(key + "\n")
    new.rename(secrets / name)


@asynccontextmanager
async def daemon_with_file(url: str, secrets: Path, *, ready: bool = True) -> AsyncIterator[Daemon]:
    settings: dict[str, Any] = {"SUPABASE_URL": url, "PRIORITYD_SECRETS_DIR": secrets}
    async with start_daemon(ready=ready, **settings, **NO_TIMER) as daemon:
        yield daemon


async def follows_changes(app: Application) -> None:
    """A change is applied; without timers only the stream and a call can do that."""
    repository = app.repository()
    app.add(app.workspace(), repository)
    await eventually(lambda: app.row(repository)[0] == "high")


async def test_a_secret_key_serves_for_calls_and_for_the_stream(stack: Stack) -> None:
    settings: dict[str, Any] = {
        "SUPABASE_URL": stack.server.url,
        "SUPABASE_SECRET_KEY": stack.server.secret_key,
    }
    async with start_daemon(**settings, **NO_TIMER) as daemon:
        await follows_changes(stack.app)
        assert stack.server.secret_key not in str(daemon.logs)
    code, _, err = await stack.priorityd("check", SUPABASE_SERVICE_ROLE_KEY=stack.server.secret_key)
    assert code == 0, err


async def test_the_publishable_key_is_not_enough(stack: Stack) -> None:
    key = stack.server.keys.publishable
    code, _, err = await stack.priorityd("status", SUPABASE_SERVICE_ROLE_KEY=key)
    assert code == 77
    assert "service_role" in err


async def test_sighup_takes_the_new_key_before_the_old_one_is_deleted(stack: Stack, secrets: Path) -> None:
    keys, old = stack.server.keys, stack.server.secret_key
    write_key(secrets, old)
    async with daemon_with_file(stack.server.url, secrets) as daemon:
        new = keys.create_secret_key()
        write_key(secrets, new)
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda: daemon.logged("key_changed"))
        await eventually(lambda: daemon.logged("stream_renewed"))
        keys.delete_secret_key(old)
        await follows_changes(stack.app)
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len(daemon.logged("resync_done", trigger="signal")) == 2)
        assert await daemon.metric("reconnects_total", reason="renewal") == 1
        assert await daemon.metric("call_errors_total", reason="key_refused") == 0
    assert len(daemon.logged("key_changed")) == 1, "the same key is not a new one"
    assert not any(key in str(daemon.logs) for key in (old, new))


@pytest.mark.parametrize("setting", ["SUPABASE_SECRET_KEY", "PRIORITYD_GATEWAY_KEY"])
async def test_a_refused_key_is_read_again_and_nothing_is_lost(
    stack: Stack, secrets: Path, setting: str
) -> None:
    keys, old, app = stack.server.keys, stack.server.secret_key, stack.app
    # The key of the project is good, unless it is the one that is refused.
    write_key(secrets, stack.server.service_role_key)
    write_key(secrets, old, setting)
    async with daemon_with_file(stack.server.url, secrets) as daemon:
        new = keys.create_secret_key()
        keys.delete_secret_key(old)
        repository = app.repository()
        app.add(app.workspace(), repository)
        # The file comes a moment after the refusal.
        await eventually(lambda: daemon.logged("key_refused"))
        write_key(secrets, new, setting)
        await eventually(lambda: app.row(repository)[0] == "high")
        await eventually(lambda: daemon.logged("stream_renewed"))
        await follows_changes(app)
        assert await daemon.answers("/readyz", 200)
    assert not any(key in str(daemon.logs) for key in (old, new))


async def test_a_project_whose_tokens_were_all_replaced_is_followed_again(
    database: Database, secrets: Path
) -> None:
    port, old, new = free_port(), Keys.create(), Keys.create()
    write_key(secrets, old.service_role)
    app = Application(database.connect())
    async with daemon_with_file(f"http://127.0.0.1:{port}", secrets, ready=False) as daemon:
        async with start_servers(database.url, port=port, keys=old):
            await eventually(lambda: daemon.answers("/readyz", 200))
            await eventually(daemon.settled)
        async with start_servers(database.url, port=port, keys=new):
            await eventually(lambda: any("refused" in str(line) for line in daemon.logs))
            write_key(secrets, new.service_role)
            await eventually(daemon.live)
            await follows_changes(app)


async def test_a_start_with_a_refused_key_goes_on_with_the_next(stack: Stack, secrets: Path) -> None:
    write_key(secrets, "sb_secret_of_yesterday")
    async with daemon_with_file(stack.server.url, secrets, ready=False) as daemon:
        await eventually(lambda: daemon.logged("key_refused"))
        assert await daemon.answers("/livez", 200)
        write_key(secrets, stack.server.secret_key)
        await eventually(daemon.live)
        await follows_changes(stack.app)


@pytest.mark.long
async def test_a_key_that_is_refused_later_is_tried_until_it_is_good_again(stack: Stack) -> None:
    keys, key, app = stack.server.keys, stack.server.secret_key, stack.app
    repository = app.repository()
    async with stack.daemon(SUPABASE_SERVICE_ROLE_KEY=key) as daemon:
        keys.delete_secret_key(key)
        app.add(app.workspace(), repository)
        await eventually(lambda: daemon.answers("/readyz", 503))
        assert await daemon.answers("/livez", 200)
        assert daemon.logged("key_refused")
        keys.secret_keys.append(key)
        await eventually(lambda: app.row(repository)[0] == "high")
        await eventually(lambda: daemon.answers("/readyz", 200))
    assert key not in str(daemon.logs)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_the_gateways_is_waited_out(stack: Stack, status: int) -> None:
    app = stack.app
    repository = app.repository()
    async with stack.daemon(**NO_TIMER) as daemon:
        misbehave(stack.server, f"rest/page?status={status}&seconds=60")
        app.add(app.workspace(), repository)
        await eventually(lambda: daemon.metric("call_errors_total", reason="unavailable"))
        misbehave(stack.server, f"rest/page?status={status}&seconds=0")
        await eventually(lambda: app.row(repository)[0] == "high")
        assert not daemon.logged("key_refused")
