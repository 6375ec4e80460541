"""The stream breaks, is silent or is refused: priorities become right all the same."""

from __future__ import annotations

import pytest

from tests.support.daemon_process import eventually
from tests.support.faults import misbehave
from tests.support.stack import NO_TIMER, Stack


@pytest.mark.parametrize("close", ["close?code=1000", "close?code=1001", "close?code=1012", "abort"])
async def test_still_applies_changes_after_the_server_closes(stack: Stack, close: str) -> None:
    app = stack.app
    workspace, missed, heard = app.workspace(), app.repository(), app.repository()
    async with stack.daemon(**NO_TIMER) as daemon:
        misbehave(stack.server, f"realtime/{close}")
        app.add(workspace, missed)
        await eventually(lambda: daemon.logged("stream_state_changed", state="backing_off", reason="closed"))
        await eventually(lambda: app.row(missed)[0] == "high")
        await eventually(daemon.live)
        app.add(workspace, heard)
        await eventually(lambda: app.row(heard)[0] == "high")
        assert await daemon.metric("reconnects_total", reason="closed") == 1


async def test_what_a_silent_stream_loses_is_found_by_the_sweep(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    async with stack.daemon(PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5):
        misbehave(stack.server, "realtime/silence?seconds=60")
        app.add(workspace, repository)
        await eventually(lambda: app.row(repository)[0] == "high")


async def test_works_by_sweeps_while_joins_are_not_answered(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    misbehave(stack.server, "realtime/refuse?seconds=60")
    async with stack.daemon(ready=False, PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
        await eventually(lambda: daemon.answers("/readyz", 200))
        app.add(workspace, repository)
        await eventually(lambda: app.row(repository)[0] == "high")
        assert (await daemon.status())["listener"]["state"] == "joining"
        await eventually(
            lambda: daemon.logged("stream_state_changed", state="backing_off", reason="join_timeout")
        )
        misbehave(stack.server, "realtime/refuse?seconds=0")
        await eventually(daemon.live)


async def test_a_table_outside_the_publication_is_named_and_retried(stack: Stack) -> None:
    app = stack.app
    app.connection.execute("alter publication supabase_realtime drop table workspace_repositories")
    async with stack.daemon(ready=False, **NO_TIMER) as daemon:
        failure = await eventually(lambda: daemon.logged("stream_state_changed", reason="subscription_error"))
        assert "workspace_repositories" in failure[0]["error"]
        app.connection.execute("alter publication supabase_realtime add table workspace_repositories")
        await eventually(daemon.live)


async def test_comes_back_after_the_replication_backend_is_lost(stack: Stack) -> None:
    # The stream silently loses what is committed until it has a new slot.
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
