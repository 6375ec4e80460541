"""Starting, stopping, signals, and what happens when Supabase is not as it should be."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from priorityd.core.database.schema import APPLY_MIGRATIONS
from priorityd.daemon.sandbox.keys import Keys
from tests.support.daemon_process import eventually, free_port, start_daemon
from tests.support.database import Database, schema_sql
from tests.support.servers import start_servers
from tests.support.service_manager import service_manager
from tests.support.stack import NO_TIMER, Stack


async def test_sighup_forces_a_full_resync_that_is_logged_and_counted(stack: Stack) -> None:
    app = stack.app
    repositories = app.repositories(20)
    async with stack.daemon(**NO_TIMER) as daemon:
        app.connection.execute(
            "update tracked_repositories set priority = 'low' where repository_id = %s", (repositories[0],)
        )
        daemon.process.send_signal(signal.SIGHUP)
        done = (await eventually(lambda: daemon.logged("resync_done", trigger="signal")))[0]
        assert (done["examined"], done["priority_changes"], done["errors"]) == (20, 1, [])
        assert await daemon.metric("resyncs_total", kind="full", trigger="signal", outcome="done") == 1
        assert app.wrong_rows() == 0


# Longer than a lock is waited for: nothing but the statement's own time-out ends it.
WAIT_UNTIL_GO_ON = b"""
create function wait() returns trigger language plpgsql security definer set search_path = public as $$
begin
    while not exists (select from go_on) loop perform pg_sleep(0.01); end loop;
    return new;
end $$;
create trigger wait before update on tracked_repositories for each row execute function wait()
"""


async def test_sighups_during_a_resync_run_exactly_one_more(stack: Stack) -> None:
    app = stack.app
    repository = app.repository()
    async with stack.daemon(**NO_TIMER) as daemon:
        app.connection.execute("update tracked_repositories set priority = 'low'")
        app.connection.execute(b"create table go_on ()")
        app.connection.execute(WAIT_UNTIL_GO_ON)
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda: daemon.logged("resync_started", trigger="signal"))
        for _ in range(3):
            requested = len(daemon.logged("resync_requested"))
            daemon.process.send_signal(signal.SIGHUP)
            await eventually(lambda requested=requested: len(daemon.logged("resync_requested")) > requested)
        assert daemon.logged("resync_done", trigger="signal") == [], "all of them came during the first"
        app.connection.execute(b"insert into go_on default values")
        await eventually(lambda: len(daemon.logged("resync_done", trigger="signal")) == 2)
        await eventually(lambda: app.row(repository)[0] == "medium")
        events = [line["event"] for line in daemon.logs if line["event"] in ("resync_started", "resync_done")]
        assert events == ["resync_started", "resync_done"] * 3, (
            "never two at once, and one more after the first"
        )


async def test_sigterm_in_a_burst_ends_in_time_and_a_restart_puts_everything_right(
    unmetered_stack: Stack,
) -> None:
    stack, app = unmetered_stack, unmetered_stack.app
    workspace, repositories = app.workspace(), app.repositories(5000)
    async with stack.daemon(**NO_TIMER) as daemon:
        app.add(workspace, *repositories)
        await eventually(lambda: app.wrong_rows() < 5000)
        assert await daemon.stop(signal.SIGTERM) == 0
        assert daemon.logged("stopped")
    async with stack.daemon(**NO_TIMER):
        await eventually(lambda: app.wrong_rows() == 0)


async def test_sigint_stops_as_well(stack: Stack) -> None:
    async with stack.daemon() as daemon:
        assert await daemon.stop(signal.SIGINT) == 0


async def test_a_second_signal_forces_the_end(stack: Stack) -> None:
    app = stack.app
    repository, workspace = app.repository(), app.workspace()
    async with stack.daemon(**NO_TIMER) as daemon:
        holder = stack.database.connect(autocommit=False)
        holder.execute("select from tracked_repositories for update")
        app.add(workspace, repository)
        await eventually(lambda: daemon.logged("repositories_locked"))
        daemon.process.send_signal(signal.SIGTERM)
        await eventually(lambda: daemon.logged("stopping"))
        assert await daemon.stop(signal.SIGTERM) == 1, "work was left undone, and the caller is told"
        assert daemon.logged("stop_forced")


@pytest.mark.long
async def test_a_key_refused_for_a_minute_from_the_start_ends_with_77_and_is_never_shown(
    stack: Stack,
) -> None:
    foreign = Keys.create().service_role
    async with stack.daemon(ready=False, SUPABASE_SERVICE_ROLE_KEY=foreign) as daemon:
        assert await daemon.process.wait() == 77
    assert len(daemon.logged("start_delayed")) > 5, "it was tried again and again"
    assert "key" in daemon.logged("fatal")[0]["error"]
    assert foreign not in str(daemon.logs)


async def test_the_anonymous_key_is_not_enough(stack: Stack) -> None:
    code, _, err = await stack.priorityd("status", SUPABASE_SERVICE_ROLE_KEY=stack.server.anon_key)
    assert code == 77
    assert "service_role" in err


async def test_waits_for_a_supabase_that_is_down_and_recovers_by_itself(database: Database) -> None:
    port, keys = free_port(), Keys.create()
    settings: dict[str, Any] = {
        "SUPABASE_URL": f"http://127.0.0.1:{port}",
        "SUPABASE_SECRET_KEY": keys.service_role,
    }
    async with start_daemon(ready=False, **settings) as daemon:
        await eventually(lambda: daemon.logged("start_delayed"))
        assert await daemon.answers("/livez", 200)
        assert await daemon.answers("/readyz", 503)
        async with start_servers(database.url, port=port, keys=keys):
            await eventually(lambda: daemon.answers("/readyz", 200))
            await eventually(daemon.live)
        assert await daemon.answers("/livez", 200)


@pytest.mark.long
async def test_migrations_missing_for_a_minute_end_with_76_naming_the_command(
    empty_database: Database,
) -> None:
    for name in ("roles", "application"):
        empty_database.connect().execute(schema_sql(name))
    async with start_servers(empty_database.url) as server:
        settings: dict[str, Any] = {
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
        }
        async with start_daemon(ready=False, **settings) as daemon:
            assert await daemon.process.wait() == 76
    assert APPLY_MIGRATIONS in daemon.logged("fatal")[0]["error"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("PRIORITYD_HTTP_PORT", "99999"),
        ("PRIORITYD_RESYNC_SCHEDULE", "every day"),
        ("PRIORITYD_BATCH_SIZE", "0"),
        ("PRIORITYD_RESYNC_SCHEDULE", "0 0 */6 * * *"),
        ("PRIORITYD_DEBOUNCE_SECONDS", "inf"),
        ("PRIORITYD_SWEEP_INTERVAL_SECONDS", "soon"),
        ("PRIORITYD_LOG_FORMAT", "xml"),
        ("SUPABASE_URL", "project.supabase.co"),
        ("SUPABASE_URL", ""),
        ("SUPABASE_URL", "https:///no-host"),
        ("SUPABASE_URL", "https://host:port"),
        ("SUPABASE_URL", "https://[::1"),
        ("SUPABASE_SERVICE_ROLE_KEY", "two words"),
    ],
)
async def test_a_bad_setting_ends_with_78_naming_it(stack: Stack, setting: str, value: str) -> None:
    code, out, err = await stack.priorityd("run", **{setting: value})
    assert (code, out) == (78, "")
    assert setting in err
    assert "Traceback" not in err
    assert stack.server.service_role_key not in err
    assert "two words" not in err


async def test_a_busy_port_ends_with_78_naming_the_setting(stack: Stack) -> None:
    with busy_port() as port:
        code, _, err = await stack.priorityd("run", PRIORITYD_HTTP_PORT=port)
    assert code == 78
    assert "PRIORITYD_HTTP_PORT" in err
    assert str(port) in err


@contextmanager
def busy_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.parametrize("abstract", [False, True], ids=["file", "abstract"])
async def test_talks_to_the_service_manager(stack: Stack, tmp_path: Path, abstract: bool) -> None:
    """sd_notify(3): what one datagram holds belongs together, and a reload is dated."""
    name = f"@{tmp_path}" if abstract else str(tmp_path / "notify")
    with service_manager(name) as manager:
        told = manager.told
        async with stack.daemon(NOTIFY_SOCKET=name, WATCHDOG_USEC=500_000) as daemon:
            assert told("READY")
            await eventually(lambda: len(told("WATCHDOG")) >= 2)
            await eventually(lambda: told("STATUS", "ready; No repository is in a workspace."))
            before = len(told("READY"))
            signalled_at = monotonic()
            daemon.process.send_signal(signal.SIGHUP)
            await eventually(lambda: len(told("READY")) > before)
            (reload,) = told("RELOADING")
            dated = int(reload["MONOTONIC_USEC"]) / 1_000_000
            assert signalled_at - 0.001 <= dated <= monotonic(), "systemd ignores a READY that is older"
            said = manager.messages
            assert said.index(reload) < said.index(told("READY")[-1])
            assert told("STOPPING") == []
            assert await daemon.stop() == 0
        await eventually(lambda: told("STOPPING"))
        assert said.index(told("STOPPING")[0]) > said.index(told("READY")[-1])
