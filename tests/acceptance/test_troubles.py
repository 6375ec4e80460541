"""The stream breaks, calls fail, rows are locked or poisoned: priorities become right all the same."""

from __future__ import annotations

import signal

import anyio
import psycopg
import pytest

from priorityd.daemon.sandbox.migrate import apply_migrations
from priorityd.daemon.sandbox.postgres import embedded_postgres
from priorityd.daemon.sandbox.server import serve_sandbox
from tests.support.application import Application
from tests.support.daemon_process import Daemon, eventually, start_daemon
from tests.support.database import schema_sql
from tests.support.stack import NO_TIMER, Stack
from tests.support.troubles import disturb, heal, poison


@pytest.mark.parametrize("close", ["close?code=1000", "close?code=1001", "close?code=1012", "abort"])
async def test_still_applies_changes_after_the_server_closes(stack: Stack, close: str) -> None:
    app = stack.app
    workspace, missed, heard = app.workspace(), app.repository(), app.repository()
    async with stack.daemon(**NO_TIMER) as daemon:
        await disturb(stack, f"realtime/{close}")
        app.add(workspace, missed)
        await eventually(lambda: daemon.logged("listener", state="backing_off", reason="closed"))
        await eventually(lambda: app.row(missed)[0] == "high")
        await eventually(daemon.live)
        app.add(workspace, heard)
        await eventually(lambda: app.row(heard)[0] == "high")
        assert await daemon.metric("reconnects_total", reason="closed") == 1


async def test_what_a_silent_stream_loses_is_found_by_the_sweep(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    async with stack.daemon(PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
        await disturb(stack, "realtime/silence?seconds=60")
        app.add(workspace, repository)
        await eventually(lambda: app.row(repository)[0] == "high")
        await eventually(lambda: daemon.logged("drift_repaired", kind="sweep"))
        assert await daemon.live()


async def test_works_by_sweeps_while_joins_are_not_answered(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    await disturb(stack, "realtime/refuse?seconds=60")
    async with stack.daemon(ready=False, PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
        await eventually(lambda: daemon.answers("/readyz", 200))
        app.add(workspace, repository)
        await eventually(lambda: app.row(repository)[0] == "high")
        assert (await daemon.status())["listener"]["state"] == "joining"
        await eventually(lambda: daemon.logged("listener", state="backing_off", reason="join_timeout"))
        await disturb(stack, "realtime/refuse?seconds=0")
        await eventually(daemon.live)


async def test_a_table_outside_the_publication_is_named_and_retried(stack: Stack) -> None:
    app = stack.app
    app.connection.execute("alter publication supabase_realtime drop table workspace_repositories")
    async with stack.daemon(ready=False, **NO_TIMER) as daemon:
        failure = await eventually(lambda: daemon.logged("listener", reason="subscription_error"))
        assert "workspace_repositories" in failure[0]["detail"]
        app.connection.execute("alter publication supabase_realtime add table workspace_repositories")
        await eventually(daemon.live)


@pytest.mark.parametrize(
    "failure",
    [
        "status=503",
        "status=500&sqlstate=57014&message=canceling+statement",
        "status=500&sqlstate=40P01&message=deadlock",
        "status=404&sqlstate=PGRST202&message=no+function",
        "status=429&sqlstate=&message=slow+down",
    ],
)
async def test_changes_wait_for_calls_that_fail_for_a_while(stack: Stack, failure: str) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    async with stack.daemon(**NO_TIMER) as daemon:
        await disturb(stack, f"rest/fail?{failure}&seconds=60")
        app.add(workspace, repository)
        await eventually(lambda: daemon.metric("pending_repositories"))
        await eventually(lambda: daemon.metric("apply_errors_total"))
        # The first call to fail may have been another's than the worker's.
        await eventually(lambda: daemon.metric("pending_repositories"))
        assert app.row(repository)[0] == "medium"
        assert await daemon.answers("/livez", 200)
        await disturb(stack, "rest/fail?status=503&seconds=0")
        await eventually(lambda: app.row(repository)[0] == "high")


async def test_a_poisoned_repository_is_parked_and_healed_when_its_cause_is_gone(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(60)
    poisoned = repositories[17]
    poison(stack, poisoned)
    async with stack.daemon(PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
        app.add(workspace, *repositories)
        await eventually(lambda: app.wrong_rows() == 1)
        await eventually(lambda: daemon.metric("parked_repositories"))
        assert daemon.logged("repository_parked", repository_id=str(poisoned))

        async def shown() -> bool:
            # While it is tried again it is parked no more.
            return str(poisoned) in (await daemon.status())["queue"]["parked_repositories"]

        await eventually(shown, 30)
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda: daemon.logged("resync_done", trigger="signal"))
        await heal(stack)
        await eventually(lambda: app.wrong_rows() == 0)
        await eventually(lambda: daemon.answers("/readyz", 200))


async def test_a_poisoned_repository_harms_nobody_else(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(20)
    app.add(workspace, *repositories)
    poison(stack, repositories[0])
    async with stack.daemon(**NO_TIMER) as daemon:
        await eventually(lambda: app.wrong_rows() == 1)
        await eventually(lambda: daemon.metric("parked_repositories"))
        # A removal needs a sweep, which finds that row, too.
        app.remove(workspace, *repositories[10:])
        await eventually(lambda: app.wrong_rows() == 1)
        app.add(workspace, *repositories[10:15])
        await eventually(lambda: app.wrong_rows() == 1)
        assert app.row(repositories[10])[0] == "high"
        assert await daemon.metric("parked_repositories") == 1


async def test_a_locked_row_holds_up_only_itself(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(20)
    async with stack.daemon(**NO_TIMER) as daemon:
        holder = stack.database.connect(autocommit=False)
        holder.execute(
            "select from tracked_repositories where repository_id = %s for update", (repositories[3],)
        )
        app.add(workspace, *repositories)
        await eventually(lambda: app.wrong_rows() == 1)
        holder.rollback()
        await eventually(lambda: app.wrong_rows() == 0)
        assert await daemon.metric("parked_repositories") == 0


async def test_rows_that_were_locked_for_long_do_not_make_sweeps_rare(stack: Stack) -> None:
    app = stack.app
    workspace, locked, later = app.workspace(), app.repository(), app.repository()
    async with stack.daemon(PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
        holder = stack.database.connect(autocommit=False)
        holder.execute("select from tracked_repositories where repository_id = %s for update", (locked,))
        app.add(workspace, locked)
        before = await daemon.metric("resyncs_total", kind="sweep", outcome="done")
        # Each of them waits a second for the row.
        await eventually(lambda: swept(daemon, before + 5))
        holder.rollback()
        await eventually(lambda: app.wrong_rows() == 0)
        await disturb(stack, "realtime/silence?seconds=60")
        app.add(workspace, later)
        await eventually(lambda: app.row(later)[0] == "high")


async def swept(daemon: Daemon, times: float) -> bool:
    return await daemon.metric("resyncs_total", kind="sweep", outcome="done") >= times


async def test_two_daemons_agree_and_write_each_change_once(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(40)
    async with stack.daemon(**NO_TIMER), stack.daemon(**NO_TIMER):
        for repository in repositories:
            app.add(workspace, repository)
        await eventually(lambda: app.wrong_rows() == 0)
        app.delete_workspace(workspace)
        await eventually(lambda: app.wrong_rows() == 0)
    changes = app.connection.execute("select count(*) from repository_priority_changes").fetchone()
    assert changes == (80,)


async def test_comes_back_after_the_replication_backend_is_lost(stack: Stack) -> None:
    # The stream loses what is committed until it has a new slot, and says nothing.
    app = stack.app
    workspace, first, second = app.workspace(), app.repository(), app.repository()
    async with stack.daemon(PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
        app.connection.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots"
            " where database = current_database()"
        )
        app.add(workspace, first)
        await eventually(lambda: app.row(first)[0] == "high")
        app.add(workspace, second)
        await eventually(lambda: app.row(second)[0] == "high")
        assert await daemon.answers("/readyz", 200)


async def test_survives_a_restart_of_postgresql() -> None:
    with embedded_postgres() as postgres:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            for name in ("roles", "application"):
                connection.execute(schema_sql(name))
            apply_migrations(connection)
            app = Application(connection)
            workspace, repositories = app.workspace(), app.repositories(3)
        async with serve_sandbox(postgres.url()) as server:
            settings = {"SUPABASE_URL": server.url, "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key}
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
