"""Hooks for Python applications: right at once, and harmless whatever happens."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import anyio
import pytest
import structlog

from priorityd.core.database.answers import SyncAnswer
from priorityd.core.library.workspace_priority_sync import WorkspacePrioritySync
from priorityd.core.priorities import Trigger
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.library.workspace_hooks import WorkspaceHooks
from tests.support.answers import Answer, answering, hang_up, http, say_nothing
from tests.support.daemon_process import free_port
from tests.support.patience import PATIENCE_SECONDS
from tests.support.situations import named
from tests.support.stack import Stack
from tests.support.troubles import poison


@asynccontextmanager
async def hooks_of(stack: Stack) -> AsyncIterator[WorkspaceHooks]:
    async with open_store(stack.server.url, stack.server.service_role_key) as store:
        yield hooks(store)


def hooks(store: Store, timeout_seconds: float = PATIENCE_SECONDS) -> WorkspaceHooks:
    return WorkspaceHooks(WorkspacePrioritySync(store, time.monotonic), timeout_seconds=timeout_seconds)


async def test_a_priority_is_right_when_the_hook_returns(stack: Stack) -> None:
    app = stack.app
    first, second, repository = app.workspace(), app.workspace(), app.repository()
    async with hooks_of(stack) as hook:
        app.add(first, repository)
        assert await hook.repository_added(first, repository)
        assert app.row(repository) == ("high", True, 1)
        app.add(second, repository)
        assert await hook.repository_added(str(second), str(repository))
        app.remove(first, repository)
        assert await hook.repository_removed(first, repository)
        assert app.row(repository) == ("high", True, 1)
        app.remove(second, repository)
        assert await hook.repository_removed(second, repository)
        assert app.row(repository) == ("medium", False, 0)


@pytest.mark.parametrize(
    "answer",
    [
        http(401, {"message": "Invalid API key"}),
        http(400, {"code": "22023", "message": "no"}),
        http(200, b"<html>captive portal</html>"),
        http(503, b""),
        hang_up,
        say_nothing,
    ],
)
async def test_no_answer_of_supabase_can_harm_the_workspace_operation(answer: Answer) -> None:
    workspace, repository = uuid4(), uuid4()
    async with answering(answer) as (store, _):
        with structlog.testing.capture_logs() as logs:
            assert not await hooks(store, 0.5).repository_added(workspace, repository)
            assert not await hooks(store, 0.5).repository_removed(workspace, repository)
    # Beside what the store says of a refused key, once.
    logs = [line for line in logs if line["event"] != "key_refused"]
    assert [(line["event"], line["operation"], line["log_level"]) for line in logs] == [
        ("workspace_hook_deferred", "added", "warning"),
        ("workspace_hook_deferred", "removed", "warning"),
    ]
    assert {line["repository_id"] for line in logs} == {str(repository)}
    assert all(line["error"] for line in logs)


async def test_a_hook_ends_with_its_time_however_long_the_call_would_wait() -> None:
    async with answering(say_nothing) as (store, reasons):
        with anyio.fail_after(10), structlog.testing.capture_logs() as logs:
            assert not await hooks(store, 0.1).repository_added(uuid4(), uuid4())
    # The call itself had not given up yet.
    assert reasons == []
    assert logs[0]["error"] == "not done within 0.1 s"


async def test_a_locked_row_is_left_to_the_stream(stack: Stack) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    app.add(workspace, repository)
    holder = stack.database.connect(autocommit=False)
    holder.execute("select from tracked_repositories for update")
    async with hooks_of(stack) as hook:
        assert not await hook.repository_added(workspace, repository)
        holder.rollback()
        assert await hook.repository_added(workspace, repository)


async def test_a_row_that_is_refused_is_named(stack: Stack) -> None:
    workspace, (repository,) = stack.app.workspace(), named(stack.app, "acme/web")
    stack.app.add(workspace, repository)
    poison(stack, repository)
    async with hooks_of(stack) as hook:
        with structlog.testing.capture_logs() as logs:
            assert not await hook.repository_added(workspace, repository)
    (line,) = logs
    assert f"repository acme/web ({repository}) can't be written: " in line["error"]


class Defective(Store):
    """A store with a defect."""

    async def sync(
        self, repository_ids: Sequence[UUID], trigger: Trigger, *, dry_run: bool = False
    ) -> SyncAnswer:
        raise ZeroDivisionError("a defect")


async def test_a_defect_of_ours_can_not_harm_it_either(stack: Stack) -> None:
    async with open_store(f"http://127.0.0.1:{free_port()}", "a.b.c") as store:
        assert not await hooks(Defective(store._client, store._api_key, store._url)).repository_added(
            uuid4(), uuid4()
        )


async def test_nor_can_what_is_no_id_or_a_listener_that_fails(stack: Stack) -> None:
    def fail(_: UUID) -> None:
        raise RuntimeError("no")

    async with open_store(stack.server.url, stack.server.service_role_key) as store:
        assert not await hooks(store).repository_added("no id", "nor this")
        service = WorkspacePrioritySync(store, time.monotonic)
        assert not await WorkspaceHooks(service, on_change=fail).repository_added(uuid4(), uuid4())


async def test_cancellation_passes() -> None:
    after = []
    async with answering(say_nothing) as (store, _):
        with anyio.move_on_after(0.1) as scope:
            await hooks(store, 60).repository_added(uuid4(), uuid4())
            after.append("went on")
    assert scope.cancelled_caught
    assert after == []


async def test_whoever_remembers_priorities_is_told_whether_it_worked_or_not(stack: Stack) -> None:
    told: list[UUID] = []
    repository = stack.app.repository()
    async with open_store(stack.server.url, stack.server.service_role_key) as store:
        service = WorkspacePrioritySync(store, time.monotonic)
        hook = WorkspaceHooks(service, on_change=told.append, timeout_seconds=PATIENCE_SECONDS)
        assert await hook.repository_added(uuid4(), repository)
    async with answering(http(401, {"message": "no"})) as (store, _):
        service = WorkspacePrioritySync(store, time.monotonic)
        assert not await WorkspaceHooks(service, on_change=told.append).repository_removed(
            uuid4(), repository
        )
    assert told == [repository, repository]
