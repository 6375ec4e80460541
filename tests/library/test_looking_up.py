"""What the library reads: cached until a change, whole or not at all, and for queueing never an error."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from priorityd.core.errors import TransientError
from priorityd.core.library.workspace_priority_sync import WorkspacePrioritySync
from priorityd.daemon.database.store import open_store
from tests.support.answers import answering, http
from tests.support.stack import Stack


@asynccontextmanager
async def service_of(stack: Stack) -> AsyncIterator[WorkspacePrioritySync]:
    async with open_store(stack.server.url, stack.server.service_role_key) as store:
        yield WorkspacePrioritySync(store, time.monotonic)


async def test_whether_a_workspace_holds_a_repository_is_cached_until_it_is_forgotten(stack: Stack) -> None:
    workspace, repository = stack.app.workspace(), stack.app.repository()
    async with service_of(stack) as service:
        assert not await service.is_in_workspace(repository)
        stack.app.add(workspace, repository)
        assert not await service.is_in_workspace(repository)
        service.forget(repository)
        assert await service.is_in_workspace(repository)
        stack.app.remove(workspace, repository)
        assert await service.is_in_workspace(repository)
        service.forget(repository)
        assert not await service.is_in_workspace(repository)


async def test_the_priority_to_queue_with_is_that_of_the_row_and_cached_until_a_sync(stack: Stack) -> None:
    workspace, repository = stack.app.workspace(), stack.app.repository()
    async with service_of(stack) as service:
        assert await service.get_repository_priority(uuid4()) == "medium"
        assert await service.get_repository_priority(repository) == "medium"
        stack.app.add(workspace, repository)
        await service.mark_as_workspace_repo(repository)
        assert await service.get_repository_priority(repository) == "high"


async def test_a_failed_look_up_means_medium_for_queueing_and_an_error_elsewhere() -> None:
    async with answering(http(503, b"")) as (store, _):
        service = WorkspacePrioritySync(store, time.monotonic)
        assert await service.get_repository_priority(uuid4()) == "medium"
        with pytest.raises(TransientError):
            await service.is_in_workspace(uuid4())
        with pytest.raises(TransientError):
            await service.get_workspace_repository_ids()


async def test_all_repositories_in_workspaces_are_listed_once_and_over_several_pages(stack: Stack) -> None:
    repositories = stack.app.repositories(10_002)
    outside, inside = repositories[0], repositories[1:]
    for workspace in (stack.app.workspace(), stack.app.workspace()):
        stack.app.add(workspace, *inside)
    async with service_of(stack) as service:
        found = await service.get_workspace_repository_ids()
    assert found == sorted(inside)
    assert outside not in found
