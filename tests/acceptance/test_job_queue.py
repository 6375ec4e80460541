"""Queueing from Python: real look-ups in a real database, events to the stand-in for Inngest's API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.errors import ExitCode, PermanentError
from priorityd.core.jobs.events import Job
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.inngest.sender import open_event_sender
from priorityd.daemon.jobs.direct_queue import LOOK_UP_PAGE_SIZE, DirectQueue, open_job_queue
from priorityd.daemon.jobs.queueing import JobsNotSentError, QueueResult
from priorityd.daemon.settings import Settings
from tests.support.daemon_process import eventually, free_port
from tests.support.event_api import EventApi, Faults, serve_event_api
from tests.support.inngest import StandIn
from tests.support.stack import Stack


@pytest.fixture
async def inngest() -> AsyncIterator[StandIn]:
    api = EventApi()
    async with serve_event_api(api) as url:
        yield StandIn(url, api)


def settings(stack: Stack, inngest: StandIn, **changes: object) -> Settings:
    supabase = {"supabase_url": stack.server.url, "supabase_key": stack.server.service_role_key}
    return inngest.settings(**(supabase | changes))


class WatchedStore:
    """The real store; each look-up is written down, and may be made to wait first."""

    def __init__(self, store: Store, before: Callable[[int], object] | None = None) -> None:
        self._store = store
        self._before = before
        self.asked: list[int] = []

    async def priorities(self, repository_ids: Sequence[UUID]) -> dict[UUID, RepositoryPriority]:
        self.asked.append(len(repository_ids))
        if self._before is not None:
            await self._before(len(self.asked))  # type: ignore[misc]
        return await self._store.priorities(repository_ids)


@asynccontextmanager
async def watched_queue(
    stack: Stack, inngest: StandIn, before: Callable[[int], object] | None = None
) -> AsyncIterator[tuple[DirectQueue, WatchedStore]]:
    chosen = settings(stack, inngest)
    async with (
        open_store(chosen.supabase_url, chosen.supabase_key.get_secret_value()) as store,
        open_event_sender(chosen) as sender,
    ):
        watched = WatchedStore(store, before)
        yield DirectQueue(watched, sender), watched  # type: ignore[arg-type]


async def synced(stack: Stack) -> None:
    assert (await stack.priorityd("sync"))[0] == 0


def jobs(repositories: Sequence[UUID], **data: object) -> list[Job]:
    return [Job("recent-prs", key, None, data) for key in repositories]


def ids(events: Sequence[dict[str, Any]]) -> list[UUID]:
    return [UUID(event["data"]["repositoryId"]) for event in events]


async def test_one_job_carries_its_repositorys_priority(stack: Stack, inngest: StandIn) -> None:
    app = stack.app
    repository = app.repository()
    for _ in range(2):
        app.add(app.workspace(), repository)
    await synced(stack)
    async with open_job_queue(settings(stack, inngest)) as queue:
        queued = await queue.queue_job("pr-details", repository, "acme/web", data={"prNumbers": [1, 2]})
    (event,) = inngest.api.accepted
    assert (queued.priority, event["name"], event["id"]) == (
        "high",
        "capture/pr.details.graphql",
        queued.event_id,
    )
    assert event["data"] == {
        "repositoryId": str(repository),
        "repositoryName": "acme/web",
        "priority": 100,
        "prNumbers": [1, 2],
        "metadata": {
            "isWorkspaceRepo": True,
            "workspaceCount": 2,
            "originalPriority": "high",
            "priority": "high",
            "priorityScore": 100,
            "priorityLookup": "found",
        },
    }


async def test_consumers_that_read_a_word_get_a_word(stack: Stack, inngest: StandIn) -> None:
    repository = stack.app.repository()
    async with open_job_queue(settings(stack, inngest, event_priority="word")) as queue:
        await queue.queue_job("reviews", repository)
    (event,) = inngest.api.accepted
    assert (event["data"]["priority"], event["data"]["priorityScore"]) == ("medium", 50)


async def test_workspace_repositories_go_first_each_kind_in_its_order(stack: Stack, inngest: StandIn) -> None:
    app = stack.app
    repositories, unknown = app.repositories(1200), uuid4()
    held, others = repositories[1::3], repositories[::3] + repositories[2::3]
    app.add(app.workspace(), *held)
    await synced(stack)
    await stack.priorityd("pin", str(others[-1]), "high")
    async with watched_queue(stack, inngest) as (queue, store):
        result = await queue.queue_jobs(jobs([*repositories, unknown]))
    accepted = inngest.api.accepted
    assert ids(accepted) == held + [key for key in [*repositories, unknown] if key not in set(held)]
    assert {event["data"]["priority"] for event in accepted[: len(held)]} == {100}
    assert store.asked == [LOOK_UP_PAGE_SIZE, LOOK_UP_PAGE_SIZE, 201]
    assert (result.look_ups, len(result.sent), result.refused) == (3, 1201, [])
    assert accepted[-1]["data"]["metadata"]["priorityLookup"] == "untracked"
    assert accepted[-1]["data"]["priority"] == 50
    pinned = next(event for event in accepted if event["data"]["repositoryId"] == str(others[-1]))
    assert (pinned["data"]["priority"], pinned["data"]["metadata"]["isWorkspaceRepo"]) == (100, False)


async def test_what_was_looked_up_is_not_asked_again_until_it_changed(stack: Stack, inngest: StandIn) -> None:
    app = stack.app
    workspace, first, second = app.workspace(), app.repository(), app.repository()
    async with watched_queue(stack, inngest) as (queue, store):
        for _ in range(2):
            await queue.queue_jobs(jobs([first, second, first]))
        assert store.asked == [2]
        app.add(workspace, first)
        await synced(stack)
        queue.forget(first)
        result = await queue.queue_jobs(jobs([first, second]))
        assert store.asked == [2, 1]
        assert [queued.priority for queued in result.sent] == ["high", "medium"]


async def test_look_ups_and_sending_overlap(stack: Stack, inngest: StandIn) -> None:
    app = stack.app
    repositories = app.repositories(LOOK_UP_PAGE_SIZE * 2)
    app.add(app.workspace(), *repositories)
    await synced(stack)

    async def until_something_was_sent(page: int) -> None:
        if page > 1:
            await eventually(lambda: inngest.api.accepted)

    async with watched_queue(stack, inngest, until_something_was_sent) as (queue, _):
        await queue.queue_jobs(jobs(repositories, text="x" * 1000))
    assert ids(inngest.api.accepted) == repositories


async def test_a_failed_look_up_queues_at_medium_and_says_so(stack: Stack, inngest: StandIn) -> None:
    repositories = stack.app.repositories(LOOK_UP_PAGE_SIZE * 6)
    stack.app.add(stack.app.workspace(), *repositories)
    away = settings(stack, inngest, supabase_url=f"http://127.0.0.1:{free_port()}")
    async with open_job_queue(away) as queue:
        result = await queue.queue_jobs(jobs(repositories))
    assert ids(inngest.api.accepted) == repositories
    data = [event["data"] for event in inngest.api.accepted]
    assert {(each["priority"], each["metadata"]["priorityLookup"]) for each in data} == {(50, "failed")}
    # Those under way when the first failed; the rest would have taken as long, for nothing.
    assert 1 <= result.look_ups <= 4
    assert result.look_up_errors


async def test_a_job_that_is_refused_spoils_no_other(stack: Stack, inngest: StandIn) -> None:
    good, large, odd = stack.app.repositories(3)
    wanted = [
        Job("comments", large, None, {"text": "x" * 300_000}),
        Job("comments", good),
        Job("comments", odd, None, {"odd": object()}),
    ]
    async with open_job_queue(settings(stack, inngest)) as queue:
        result = await queue.queue_jobs(wanted)
        with pytest.raises(PermanentError, match="max size"):
            await queue.queue_job("comments", large, data={"text": "x" * 300_000})
    assert ids(inngest.api.accepted) == [good]
    reasons = {refused.job.repository_id: refused.reason for refused in result.refused}
    assert set(reasons) == {large, odd}
    assert "max size" in reasons[large]
    assert "not JSON" in reasons[odd]
    assert result.not_sent == []


async def test_what_was_not_sent_is_told_and_sending_it_again_runs_nothing_twice(
    stack: Stack, inngest: StandIn
) -> None:
    repositories = stack.app.repositories(2000)
    wanted = jobs(repositories)
    seen: list[int] = []

    def fail_from_now_on(result: QueueResult) -> None:
        seen.append(len(result.sent))
        inngest.api.faults = Faults(status=503, accept=100)

    async with open_job_queue(settings(stack, inngest)) as queue:
        with pytest.raises(JobsNotSentError) as caught:
            await queue.queue_jobs(wanted, fail_from_now_on)
        failed = caught.value
        assert failed.exit_code == ExitCode.UNAVAILABLE
        assert len(seen) == 1
        sent = [queued.job.repository_id for queued in failed.result.sent]
        assert sent == repositories[: seen[0]]
        assert [job.repository_id for job in failed.result.not_sent] == repositories[seen[0] :]
        inngest.api.faults = Faults()
        await queue.queue_jobs(failed.result.not_sent)
    assert sorted(ids(inngest.api.runs)) == sorted(repositories)
    assert len(inngest.api.accepted) > len(repositories)


async def test_nothing_to_queue_is_no_call_at_all(stack: Stack, inngest: StandIn) -> None:
    async with watched_queue(stack, inngest) as (queue, store):
        result = await queue.queue_jobs([])
    assert (store.asked, inngest.api.attempts, result.sent) == ([], 0, [])
