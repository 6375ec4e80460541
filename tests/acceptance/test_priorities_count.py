"""From a workspace to the order of work: a repository's job overtakes those that wait, for its workspace.

Everything on the way is real but Inngest: an application's change, the daemon that hears of it, the command
that queues, and a worker process that orders its work by the rule that Inngest documents.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import anyio
import pytest

from priorityd.core.inngest.run_priority import run_priority_expression
from tests.support.daemon_process import eventually
from tests.support.event_api import EVENT_KEY, EventApi, serve_event_api
from tests.support.patience import PATIENCE_SECONDS
from tests.support.stack import Stack

TRACKED_ONLY = 50
DONE_BEFORE = 3


class Worker:
    """The worker process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def do(self, jobs: int) -> list[dict[str, Any]]:
        """Let it do so many jobs, one after the other."""
        return await anyio.to_thread.run_sync(self._do, jobs)

    def _do(self, jobs: int) -> list[dict[str, Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(jobs, file=self._process.stdin, flush=True)
        return [json.loads(self._process.stdout.readline()) for _ in range(jobs)]


@contextmanager
def worker(url: str, expression: str) -> Iterator[Worker]:
    command = [sys.executable, "-m", "tests.support.worker", url, expression]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Worker(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE_SECONDS) == 0


@pytest.fixture
async def inngest() -> AsyncIterator[str]:
    async with serve_event_api(EventApi()) as url:
        yield url


async def queue(stack: Stack, url: str, *repositories: UUID, **settings: object) -> None:
    inngest = {"INNGEST_EVENT_API_BASE_URL": url, "INNGEST_EVENT_KEY": EVENT_KEY}
    ids = map(str, repositories)
    code, _, err = await stack.priorityd("queue", "historical-pr-sync", *ids, **(inngest | settings))
    assert code == 0, err


async def order_of_work(
    stack: Stack, url: str, expression: str, **settings: object
) -> tuple[UUID, list[dict[str, Any]]]:
    """Jobs of 50 tracked-only repositories wait, some are done, then a workspace repository's is queued."""
    app = stack.app
    workspace, held, *others = app.workspace(), *app.repositories(1 + TRACKED_ONLY)
    async with stack.daemon():
        app.add(workspace, held)
        await eventually(lambda: app.row(held)[0] == "high")
    with worker(url, expression) as process:
        await queue(stack, url, *others, **settings)
        done = await process.do(DONE_BEFORE)
        await queue(stack, url, held, **settings)
        done += await process.do(TRACKED_ONLY + 1 - DONE_BEFORE)
        assert await process.do(1) == [None]
    assert [UUID(job["repositoryId"]) for job in done if job["repositoryId"] != str(held)] == others
    return held, done


@pytest.mark.parametrize("form", ["score", "word"])
async def test_a_workspace_repository_is_processed_before_those_that_wait(
    stack: Stack, inngest: str, form: str
) -> None:
    held, done = await order_of_work(stack, inngest, run_priority_expression(), PRIORITYD_EVENT_PRIORITY=form)
    assert done[DONE_BEFORE]["repositoryId"] == str(held)
    assert done[DONE_BEFORE]["priority"] == {"score": 100, "word": "high"}[form]


async def test_without_the_recommended_expression_it_waits_for_all_of_them(
    stack: Stack, inngest: str
) -> None:
    held, done = await order_of_work(stack, inngest, "event.data.priority")
    assert done[-1]["repositoryId"] == str(held)
    assert done[-1]["priority"] == 100
