"""Calls fail, rows are locked or poisoned: what can be written is, and the rest when it can be."""

from __future__ import annotations

import signal

import pytest

from tests.support.daemon_process import Daemon, eventually
from tests.support.faults import misbehave
from tests.support.stack import NO_TIMER, Stack
from tests.support.troubles import heal, poison


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
        misbehave(stack.server, f"rest/fail?{failure}&seconds=60")
        app.add(workspace, repository)
        await eventually(lambda: daemon.metric("pending_repositories"))
        await eventually(lambda: daemon.metric("call_errors_total"))
        # The first call to fail may have been another's than the worker's.
        await eventually(lambda: daemon.metric("pending_repositories"))
        assert app.row(repository)[0] == "medium"
        assert await daemon.answers("/livez", 200)
        misbehave(stack.server, "rest/fail?status=503&seconds=0")
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
        await eventually(lambda: daemon.logged("repository_parked", repository_id=str(poisoned)))

        async def shown() -> bool:
            # While it is tried again it is parked no more.
            parked = (await daemon.status())["queue"]["parked_repositories"]
            return str(poisoned) in [row["repository_id"] for row in parked]

        await eventually(shown)
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
        # While it is tried again it is parked no more.
        await eventually(lambda: daemon.metric("parked_repositories"))


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
        misbehave(stack.server, "realtime/silence?seconds=60")
        app.add(workspace, later)
        await eventually(lambda: app.row(later)[0] == "high")


async def swept(daemon: Daemon, times: float) -> bool:
    return await daemon.metric("resyncs_total", kind="sweep", outcome="done") >= times
