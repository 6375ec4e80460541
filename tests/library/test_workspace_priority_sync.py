"""The library on a real database behind the REST surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from priorityd.core.errors import TransientError
from priorityd.core.library import workspace_priority_sync
from priorityd.core.library.workspace_priority_sync import WorkspacePrioritySync
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.store import open_store
from tests.support.answers import answering, http
from tests.support.faults import misbehave
from tests.support.stack import Stack


@pytest.fixture
async def service(stack: Stack) -> AsyncIterator[WorkspacePrioritySync]:
    async with open_store(stack.server.url, stack.server.service_role_key) as store:
        yield WorkspacePrioritySync(store, monotonic)


async def test_a_repository_is_in_a_workspace_by_its_memberships(
    stack: Stack, service: WorkspacePrioritySync
) -> None:
    workspace, (inside, outside) = stack.app.workspace(), stack.app.repositories(2)
    stack.app.add(workspace, inside)
    assert await service.is_in_workspace(inside)
    assert not await service.is_in_workspace(outside)
    assert not await service.is_in_workspace(uuid4())


async def test_what_is_known_is_remembered_until_it_is_said_to_have_changed(
    stack: Stack, service: WorkspacePrioritySync
) -> None:
    workspace, repository = stack.app.workspace(), stack.app.repository()
    stack.app.add(workspace, repository)
    await service.mark_as_workspace_repo(repository)
    assert await service.is_in_workspace(repository)
    assert await service.get_repository_priority(repository) == "high"
    stack.app.remove(workspace, repository)
    assert await service.is_in_workspace(repository)
    await service.mark_as_tracked_only(repository)
    assert not await service.is_in_workspace(repository)
    assert await service.get_repository_priority(repository) == "medium"
    stack.app.add(workspace, repository)
    service.forget(repository)
    assert await service.is_in_workspace(repository)


async def test_an_unknown_priority_is_medium_and_not_remembered(
    stack: Stack, service: WorkspacePrioritySync
) -> None:
    workspace, repository = stack.app.workspace(), stack.app.repository()
    stack.app.add(workspace, repository)
    await service.mark_as_workspace_repo(repository)
    misbehave(stack.server, "rest/fail?status=400&sqlstate=22000&seconds=600&message=no")
    assert await service.get_repository_priority(repository) == "medium"
    misbehave(stack.server, "rest/fail?seconds=0")
    assert await service.get_repository_priority(repository) == "high"
    assert await service.get_repository_priority(uuid4()) == "medium"


async def test_whether_it_is_in_a_workspace_is_not_guessed() -> None:
    async with answering(http(503, {"code": "PGRST000", "message": "no database"})) as (store, _):
        with pytest.raises(TransientError):
            await WorkspacePrioritySync(store, monotonic).is_in_workspace(uuid4())


async def test_every_workspace_repository_is_listed_once_over_any_number_of_pages(
    stack: Stack, service: WorkspacePrioritySync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_priority_sync, "_IDS_PAGE_SIZE", 2)
    workspaces, repositories = [stack.app.workspace() for _ in range(2)], stack.app.repositories(6)
    for workspace in workspaces:
        stack.app.add(workspace, *repositories[:5])
    assert await service.get_workspace_repository_ids() == sorted(repositories[:5])


async def test_a_database_that_takes_no_writes_is_no_fault_of_the_row(
    stack: Stack, service: WorkspacePrioritySync
) -> None:
    repository = stack.app.repository()
    stack.app.add(stack.app.workspace(), repository)
    stack.app.connection.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin"
        " raise exception using errcode = '53100', message = 'No space left'; end $$;"
        "create trigger refuse before update on tracked_repositories for each row execute function refuse()"
    )
    with pytest.raises(TransientError, match="No space left"):
        await service.mark_as_workspace_repo(repository)
