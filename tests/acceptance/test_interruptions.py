"""The database or the daemon is gone for a while: nothing is lost."""

from __future__ import annotations

import signal
from typing import Any

import anyio
import psycopg

from priorityd.daemon.sandbox.migrate import apply_migrations
from priorityd.daemon.sandbox.postgres import embedded_postgres
from tests.support.application import Application
from tests.support.daemon_process import eventually, start_daemon
from tests.support.database import schema_sql
from tests.support.servers import start_servers
from tests.support.stack import NO_TIMER, Stack


async def test_survives_a_restart_of_postgresql() -> None:
    with embedded_postgres() as postgres:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            for name in ("roles", "application"):
                connection.execute(schema_sql(name))
            apply_migrations(connection)
            app = Application(connection)
            workspace, repositories = app.workspace(), app.repositories(3)
        async with start_servers(postgres.url()) as server:
            settings: dict[str, Any] = {
                "SUPABASE_URL": server.url,
                "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
            }
            async with start_daemon(**settings, PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
                await anyio.to_thread.run_sync(postgres.stop)
                await eventually(lambda: daemon.logged("sweep_failed"))
                assert await daemon.answers("/livez", 200)
                await anyio.to_thread.run_sync(postgres.start)
                with psycopg.connect(postgres.url(), autocommit=True) as connection:
                    app = Application(connection)
                    for repository in repositories:
                        app.add(workspace, repository)
                        await eventually(lambda repository=repository: app.row(repository)[0] == "high")
                assert await daemon.stop() == 0


async def test_goes_on_after_being_stopped_for_a_while(stack: Stack) -> None:
    app = stack.app
    workspace, first, second = app.workspace(), app.repository(), app.repository()
    async with stack.daemon(**NO_TIMER) as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        app.add(workspace, first)
        daemon.process.send_signal(signal.SIGCONT)
        await eventually(lambda: app.row(first)[0] == "high")
        app.add(workspace, second)
        await eventually(lambda: app.row(second)[0] == "high")


async def test_a_kill_loses_nothing(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(500)
    async with stack.daemon(**NO_TIMER) as daemon:
        app.add(workspace, *repositories)
        await daemon.stop(signal.SIGKILL)
    async with stack.daemon(**NO_TIMER):
        await eventually(lambda: app.wrong_rows() == 0)
