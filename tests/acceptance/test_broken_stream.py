"""The stream breaks, is silent or is refused: priorities become right all the same."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from priorityd.daemon.sandbox.keys import Keys
from tests.support.application import Application
from tests.support.daemon_process import Daemon, eventually
from tests.support.database import Database
from tests.support.faults import Faults, misbehave
from tests.support.plans import ATTENTIVE
from tests.support.servers import start_servers
from tests.support.stack import NO_TIMER, Stack, open_stack


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
        # By turns it waits for an answer and rests.
        await eventually(lambda: is_joining(daemon))
        await eventually(
            lambda: daemon.logged("stream_state_changed", state="backing_off", reason="join_timeout")
        )
        misbehave(stack.server, "realtime/refuse?seconds=0")
        await eventually(daemon.live)


async def is_joining(daemon: Daemon) -> bool:
    return bool((await daemon.status())["listener"]["state"] == "joining")


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


@pytest.fixture
async def attentive_stack(database: Database) -> AsyncIterator[Stack]:
    async with open_stack(database, ATTENTIVE) as stack:
        yield stack


@pytest.mark.long
async def test_a_publication_that_loses_the_table_is_told_in_the_servers_words_until_it_has_it_again(
    attentive_stack: Stack,
) -> None:
    app = attentive_stack.app
    workspace, repository = app.workspace(), app.repository()
    async with attentive_stack.daemon(PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
        app.connection.execute("alter publication supabase_realtime drop table workspace_repositories")
        (failure, *_) = await eventually(
            lambda: daemon.logged("stream_state_changed", reason="subscription_error")
        )
        assert failure["error"].startswith("Unable to subscribe to changes with given parameters. Please")
        assert "table: workspace_repositories" in failure["error"]
        app.add(workspace, repository)
        await eventually(lambda: app.row(repository)[0] == "high")
        # The server does not try again by itself.
        app.connection.execute("alter publication supabase_realtime add table workspace_repositories")
        await eventually(daemon.settled)


async def test_a_publication_that_gets_another_table_costs_a_sweep(attentive_stack: Stack) -> None:
    app = attentive_stack.app
    workspace, lost = app.workspace(), app.repository()
    async with attentive_stack.daemon(**NO_TIMER) as daemon:
        sweeps = (await daemon.status())["sweep"]["last_done_at"]
        # As between the drop of all subscriptions and the next ones.
        misbehave(attentive_stack.server, "realtime/silence?seconds=60")
        app.add(workspace, lost)
        app.connection.execute("alter publication supabase_realtime add table workspaces")
        await eventually(lambda: app.row(lost)[0] == "high")
        # The row is right a moment before the daemon has its answer.
        await eventually(lambda: has_swept_since(daemon, sweeps))
        assert daemon.logged("stream_state_changed", state="backing_off") == []


async def has_swept_since(daemon: Daemon, last_done_at: str) -> bool:
    return bool((await daemon.status())["sweep"]["last_done_at"] > last_done_at)


@pytest.mark.long
async def test_over_the_quota_sweeps_go_on_and_the_stream_is_back_by_itself(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    async with stack.daemon(PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
        misbehave(stack.server, "realtime/quota?events=0&seconds=3600")
        (problem,) = await eventually(lambda: problems_of(daemon))
        assert problem["name"] == "changes_not_heard"
        assert "sweeps find them" in problem["text"]
        app.add(workspace, repository)
        await eventually(lambda: app.row(repository)[0] == "high")
        assert await daemon.answers("/readyz", 200)
        misbehave(stack.server, "realtime/quota?seconds=0")
        await eventually(daemon.settled)
        await eventually(lambda: is_well(daemon))


async def problems_of(daemon: Daemon) -> list[dict[str, str]]:
    problems: list[dict[str, str]] = (await daemon.status())["problems"]
    return problems


async def is_well(daemon: Daemon) -> bool:
    return await problems_of(daemon) == []


@pytest.mark.long
async def test_a_handshake_that_is_refused_is_told_in_the_servers_words(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    async with stack.daemon(PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
        misbehave(stack.server, "realtime/disable?seconds=3600")
        misbehave(stack.server, "realtime/abort")
        (failure, *_) = await eventually(lambda: daemon.logged("stream_state_changed", reason="refused"))
        assert failure["error"].endswith("was answered with 403: Realtime was disabled for this tenant")
        app.add(workspace, repository)
        await eventually(lambda: app.row(repository)[0] == "high")
        (problem,) = await eventually(lambda: problems_of(daemon))
        assert "Realtime was disabled for this tenant" in problem["text"]
        misbehave(stack.server, "realtime/disable?seconds=0")
        await eventually(daemon.settled)


async def test_a_key_that_rest_takes_and_realtime_does_not_leaves_the_daemon_at_work(
    database: Database,
) -> None:
    app = Application(database.connect(), database.world)
    workspace, repository = app.workspace(), app.repository()
    keys = Keys.create()
    # PostgREST wants no `exp`, Realtime does.
    keys = replace(keys, service_role=keys.sign({"role": "service_role", "iat": int(time.time())}))
    async with start_servers(database.url, keys=keys, faults=Faults()) as server:
        stack = Stack(server, database, app)
        async with stack.daemon(ready=False, PRIORITYD_SWEEP_INTERVAL_SECONDS=0.5) as daemon:
            (failure, *_) = await eventually(lambda: daemon.logged("stream_state_changed", reason="refused"))
            assert failure["error"].endswith("401: Fields `role` and `exp` are required in JWT")
            app.add(workspace, repository)
            await eventually(lambda: app.row(repository)[0] == "high")
            assert await daemon.answers("/readyz", 200)
