"""Ordered jobs from the shell to the worker, everything real but Inngest: the command, daemons, workers."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import anyio
import pytest

from tests.support.daemon_process import eventually
from tests.support.event_api import EVENT_KEY, EventApi, serve_event_api
from tests.support.inngest import StandIn
from tests.support.patience import PATIENCE_SECONDS
from tests.support.stack import Stack

IN_FLIGHT, JOBS, KILLS = 2, 60, 2
OUT = "select count(*) from priorityd.ordered_jobs where released_at is not null"


@pytest.fixture
async def inngest() -> AsyncIterator[StandIn]:
    api = EventApi()
    async with serve_event_api(api) as url:
        yield StandIn(url, api)


def releasing(inngest: StandIn) -> dict[str, Any]:
    return {
        "INNGEST_EVENT_API_BASE_URL": inngest.url,
        "INNGEST_EVENT_KEY": EVENT_KEY,
        "PRIORITYD_JOBS_IN_FLIGHT": IN_FLIGHT,
        "PRIORITYD_DISPATCH_CHANGES": "false",
    }


def start_worker(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.ordered_worker", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)


@asynccontextmanager
async def workers(stack: Stack, inngest: StandIn, count: int, seconds: float) -> AsyncIterator[None]:
    """Worker processes, for the length of the block."""
    arguments = (inngest.url, stack.database.url, str(seconds))
    processes = [start_worker(*arguments) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        # In a thread each: the events that they may be asking for come from this event loop.
        ended = [await anyio.to_thread.run_sync(process.wait, PATIENCE_SECONDS) for process in processes]
    assert ended == [0] * count


def value(stack: Stack, query: str, *args: object) -> Any:
    row = stack.app.connection.execute(query.encode(), args or None).fetchone()
    assert row is not None
    return row[0]


def done(stack: Stack) -> int:
    number: int = value(stack, "select count(*) from background_jobs where status = 'completed'")
    return number


async def queue(stack: Stack, *repositories: UUID, mode: str = "ordered") -> dict[str, Any]:
    code, out, err = await stack.priorityd(
        "queue", "reviews", *map(str, repositories), "--mode", mode, "--json"
    )
    assert code == 0, err
    answer: dict[str, Any] = json.loads(out)
    return answer


async def test_a_repository_that_joins_a_workspace_moves_past_the_backlog(
    stack: Stack, inngest: StandIn
) -> None:
    """Its job waits already, as the last of 40, when the team adds it; so it must not wait for the others."""
    app = stack.app
    repositories = app.repositories(40)
    last = repositories[-1]
    await queue(stack, *repositories)  # needs neither Inngest nor its key
    async with stack.daemon(**releasing(inngest)) as daemon:
        async with workers(stack, inngest, IN_FLIGHT, 0.1):
            await eventually(lambda: done(stack) >= 4)
            app.add(app.workspace(), last)
            await eventually(lambda: done(stack) == len(repositories))
        status = await eventually(lambda: nothing_out(daemon))
        assert (await daemon.metric("jobs_released_total", priority="high")) == 1
    assert status["ordered_jobs"]["held_back_because"] is None
    overtaking = value(
        stack,
        """select count(*) from background_jobs b, background_jobs u, repository_priority_changes c
           where u.repository_id = %s and c.repository_id = u.repository_id
               and b.id <> u.id and b.started_at > c.changed_at and b.started_at < u.started_at""",
        last,
    )
    behind = value(
        stack,
        """select count(*) from background_jobs b, background_jobs u
           where u.repository_id = %s and b.started_at > u.started_at""",
        last,
    )
    # Those that were out already, and one release that was under way when the change was committed.
    assert overtaking <= 2 * IN_FLIGHT
    assert behind >= 20


async def nothing_out(daemon: Any) -> dict[str, Any] | None:
    status: dict[str, Any] = await daemon.status()
    ordered = status["ordered_jobs"]
    return status if ordered["waiting"] is False and not any(ordered["in_flight"].values()) else None


@pytest.mark.kills
async def test_daemons_that_are_killed_lose_and_double_no_job(stack: Stack, inngest: StandIn) -> None:
    """Two release at once; both are killed at a random moment and replaced, twice."""
    repositories = stack.app.repositories(JOBS)
    chance = random.Random(7)
    await queue(stack, *repositories)
    most = 0

    def progress() -> int:
        nonlocal most
        most = max(most, value(stack, OUT))
        # A minute passes for the claims of those who died.
        stack.app.connection.execute(
            """update priorityd.ordered_jobs set lease_until = lease_until - interval '1 second'
               where sent_at is null and released_at is not null"""
        )
        return done(stack)

    async def reached(count: int) -> bool:
        # In a thread: it may wait for a transaction that the sandbox, in this event loop, has to end.
        return await anyio.to_thread.run_sync(progress) >= count

    async with workers(stack, inngest, IN_FLIGHT, 0.02), AsyncExitStack() as running:
        for until in (*sorted(chance.sample(range(2, JOBS - 10), KILLS)), JOBS):
            daemons = [
                await running.enter_async_context(stack.daemon(ready=False, **releasing(inngest)))
                for _ in range(2)
            ]
            await eventually(lambda until=until: reached(until), 90)
            if until < JOBS:
                for daemon in daemons:
                    daemon.process.send_signal(signal.SIGKILL)
    assert most <= IN_FLIGHT
    events = [event["id"] for event in inngest.api.accepted]
    assert len(set(events)) == len(repositories)
    assert value(stack, "select count(*) from priorityd.ordered_jobs where sent_at is null") == 0


async def test_the_setting_decides_the_mode_and_the_command_may_differ(
    stack: Stack, inngest: StandIn
) -> None:
    repository = str(stack.app.repository())
    ordered = {"PRIORITYD_QUEUE_MODE": "ordered"}
    code, _, err = await stack.priorityd("queue", "reviews", repository, **ordered)
    assert (code, inngest.api.accepted) == (0, []), err
    assert "1 of 1 jobs queued" in err
    settings = releasing(inngest) | ordered
    code, _, err = await stack.priorityd("queue", "reviews", repository, "--mode", "direct", **settings)
    assert (code, len(inngest.api.accepted)) == (0, 1), err
    assert value(stack, "select count(*) from background_jobs") == 1


async def test_the_same_batch_queues_nothing_twice(stack: Stack) -> None:
    repository = str(stack.app.repository())
    for _ in range(2):
        code, _, err = await stack.priorityd(
            "queue", "reviews", repository, "--mode", "ordered", "--batch-id", "nightly"
        )
        assert code == 0, err
    assert value(stack, "select count(*) from background_jobs") == 1


async def seen_by_all(stack: Stack) -> list[dict[str, int]]:
    """What waits by priority, as `jobs list` and `status`, for people and for scripts, tell it."""
    _, listed, _ = await stack.priorityd("jobs", "list", "--json")
    _, status, _ = await stack.priorityd("status", "--json")
    _, words, _ = await stack.priorityd("status")
    counted = {each["priority"]: each["waiting"] for each in json.loads(status)["ordered_jobs"]["jobs"]}
    (line,) = re.findall(r"ordered jobs waiting: (.*), the oldest", words)
    told = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", line)}
    return [dict(Counter(job["priority"] for job in json.loads(listed)["jobs"])), counted, told]


async def test_it_is_said_when_no_daemon_releases(stack: Stack) -> None:
    repository = str(stack.app.repository())
    never = "No daemon is releasing them: none has ever asked for jobs."
    code, _, err = await stack.priorityd("queue", "reviews", repository, "--mode", "ordered")
    assert (code, never in err) == (0, True)
    assert never in (await stack.priorityd("jobs", "list"))[2]
    assert never in (await stack.priorityd("status"))[1]
    stack.app.connection.execute("select release_ordered_jobs(gen_random_uuid(), 1, 1)")
    await queue(stack, stack.app.repository())
    for command in (["jobs", "list"], ["status"]):
        _, out, err = await stack.priorityd(*command)
        assert "o daemon is releasing" not in out + err
    ago = "update priorityd.release_state set released_until = released_until - interval %s"
    stack.app.connection.execute(ago.replace("%s", "'5 min'").encode())
    for command in (["jobs", "list"], ["status"]):
        _, out, err = await stack.priorityd(*command)
        perhaps = r"Perhaps no daemon is releasing them: none has asked for jobs for 3\d\d s"
        assert re.search(perhaps, out + err)
    stack.app.connection.execute(ago.replace("%s", "'2 h'").encode())
    _, _, err = await stack.priorityd("jobs", "list")
    assert re.search(r"No daemon is releasing them: none has asked for jobs for 7,[5-7]\d\d s", err)


async def test_waiting_jobs_are_listed_counted_and_cancelled(stack: Stack) -> None:
    app = stack.app
    first, second = app.repositories(2)
    app.add(app.workspace(), second)
    assert (await stack.priorityd("sync"))[0] == 0
    queued = await queue(stack, first, second)
    assert [(job["priority"], job["look_up"]) for job in queued["jobs"]] == [
        ("medium", "found"),
        ("high", "found"),
    ]
    assert await seen_by_all(stack) == [{"high": 1, "medium": 1}] * 3
    # Nothing is sent by asking.
    app.connection.execute("select release_ordered_jobs(gen_random_uuid(), 1, 1)")
    app.connection.execute("update priorityd.ordered_jobs set lease_until = now()")
    code, out, _ = await stack.priorityd("jobs", "list", "--json")
    assert code == 0
    assert [job["priority"] for job in json.loads(out)["jobs"]] == ["high", "medium"]
    code, out, _ = await stack.priorityd("jobs", "list", "--repository", str(first))
    assert (code, out.split()[:2]) == (0, ["1", "medium"])
    code, out, _ = await stack.priorityd("status")
    assert "ordered jobs waiting: 1 medium" in out
    assert "ordered jobs in flight: 1 high" in out
    code, out, err = await stack.priorityd("jobs", "cancel", "--repository", str(second))
    assert (code, "1 is in flight" in err) == (1, True)
    code, out, _ = await stack.priorityd("jobs", "cancel", "--repository", str(first))
    assert (code, out) == (0, f"1 job of {first} cancelled\n")
    code, _, err = await stack.priorityd("jobs", "cancel")
    assert (code, "Name at least one job id" in err) == (2, True)
    statuses = app.connection.execute("select status from background_jobs order by status").fetchall()
    assert statuses == [("cancelled",), ("queued",)]
