"""What the real daemon process announces to Inngest, which is a stand-in in a separate process."""

from __future__ import annotations

import json
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from tests.support.daemon_process import Daemon, eventually, http_client
from tests.support.stack import Stack

CHANGED, SYNC = "workspace/priority.changed", "capture/repository.sync.graphql"


@dataclass
class Inngest:
    """The stand-in's process, and how to control and query it."""

    process: Process
    url: str
    event_key: str

    @property
    def settings(self) -> dict[str, Any]:
        return {"INNGEST_EVENT_KEY": self.event_key, "INNGEST_EVENT_API_BASE_URL": self.url}

    async def fail(self, **faults: object) -> None:
        async with http_client() as client:
            (await client.post(f"{self.url}/stand-in/faults", json=faults)).raise_for_status()

    async def accepted(self) -> list[dict[str, Any]]:
        async with http_client() as client:
            answer = await client.get(f"{self.url}/stand-in/accepted")
        events: list[dict[str, Any]] = answer.json()["accepted"]
        return events

    async def repositories(self, name: str) -> list[str]:
        """The repositories of the events of this name, each id once."""
        events = {event["id"]: event for event in await self.accepted() if event["name"] == name}
        return [event["data"]["repositoryId"] for event in events.values()]

    async def has(self, name: str, *repositories: UUID) -> bool:
        return {str(repository) for repository in repositories} <= set(await self.repositories(name))


@asynccontextmanager
async def start_inngest(port: int = 0) -> AsyncIterator[Inngest]:
    command = [sys.executable, "-m", "tests.support.event_api", "--port", str(port)]
    async with await anyio.open_process(command, stderr=None) as process:
        assert process.stdout is not None
        ready = json.loads(await TextReceiveStream(process.stdout).receive())
        try:
            yield Inngest(process, ready["url"], ready["event_key"])
        finally:
            if process.returncode is None:
                process.kill()


@pytest.fixture
async def inngest() -> AsyncIterator[Inngest]:
    async with start_inngest() as inngest:
        yield inngest


async def outbox(daemon: Daemon) -> dict[str, Any]:
    status: dict[str, Any] = (await daemon.status())["outbox"]
    return status


def unfinished(stack: Stack) -> int:
    row = stack.app.connection.execute("select priority_outbox_depth() ->> 'pending'").fetchone()
    assert row is not None
    return int(row[0])


async def test_a_repository_that_joins_a_workspace_is_announced_and_queued_at_once(
    stack: Stack, inngest: Inngest
) -> None:
    async with stack.daemon(**inngest.settings) as daemon:
        repository = stack.app.repository()
        workspace = stack.app.workspace()
        stack.app.add(workspace, repository)
        await eventually(lambda: inngest.has(SYNC, repository))
        assert await inngest.has(CHANGED, repository)
        stack.app.remove(workspace, repository)
        await eventually(lambda: unfinished(stack) == 0)

        async def twice() -> bool:
            return len(await inngest.repositories(CHANGED)) == 2

        await eventually(twice)
        assert await inngest.repositories(SYNC) == [str(repository)]
        (sync,) = [event for event in await inngest.accepted() if event["name"] == SYNC]
        assert sync["data"]["priority"] == 100
        # Inngest has them a moment before the daemon has its answer.
        await eventually(lambda: counted(daemon, CHANGED, 2))
        await eventually(lambda: counted(daemon, SYNC, 1))
        assert inngest.event_key not in str(daemon.logs)


async def counted(daemon: Daemon, event: str, sent: int) -> bool:
    return await daemon.metric("dispatched_total", event=event, outcome="sent") == sent


async def test_syncing_and_announcing_can_be_switched_off(stack: Stack, inngest: Inngest) -> None:
    no_sync: dict[str, Any] = {"PRIORITYD_SYNC_NEW_WORKSPACE_REPOSITORIES": "false"}
    async with stack.daemon(**inngest.settings | no_sync):
        repository = stack.app.repository()
        stack.app.add(stack.app.workspace(), repository)
        await eventually(lambda: inngest.has(CHANGED, repository))
        assert await inngest.repositories(SYNC) == []
    async with stack.daemon(**inngest.settings | {"PRIORITYD_DISPATCH_CHANGES": "false"}) as daemon:
        assert await outbox(daemon) == {"dispatching": False}


async def test_without_inngest_the_record_is_an_audit_trail_and_no_backlog(stack: Stack) -> None:
    async with stack.daemon() as daemon:
        repository = stack.app.repository()
        stack.app.add(stack.app.workspace(), repository)
        await eventually(lambda: stack.app.row(repository) == ("high", True, 1))
        assert await outbox(daemon) == {"dispatching": False}
        assert await daemon.metric("outbox_pending") == 0
    code, shown, _ = await stack.priorityd("status")
    assert code == 0
    assert "         0  changes waiting to be announced" in shown


async def test_switched_on_later_it_begins_from_now_on(stack: Stack, inngest: Inngest) -> None:
    async with stack.daemon():
        old = stack.app.repository()
        stack.app.add(stack.app.workspace(), old)
        await eventually(lambda: stack.app.row(old) == ("high", True, 1))
    async with stack.daemon(**inngest.settings) as daemon:
        await eventually(lambda: daemon.logged("dispatch_started", from_now_on=True))
        new = stack.app.repository()
        stack.app.add(stack.app.workspace(), new)
        await eventually(lambda: inngest.has(CHANGED, new))
        assert await inngest.repositories(CHANGED) == [str(new)]


async def test_inngest_down_holds_nothing_up_and_loses_nothing(stack: Stack) -> None:
    async with start_inngest() as inngest:
        settings = inngest.settings
        async with stack.daemon(**settings) as daemon:
            inngest.process.kill()
            await inngest.process.wait()
            repositories = stack.app.repositories(40)
            stack.app.add(stack.app.workspace(), *repositories)
            await eventually(lambda: all(stack.app.row(r) == ("high", True, 1) for r in repositories))
            await eventually(lambda: daemon.logged("dispatch_failed"))
            assert (await daemon.status())["ready"]
            assert (await outbox(daemon))["last_error"]
            code, shown, _ = await stack.priorityd("status", PRIORITYD_HTTP_PORT=daemon.port)
            assert code == 0
            assert "can't announce changes" in shown
            assert "        40  changes waiting to be announced" in shown
            async with start_inngest(int(inngest.url.rpartition(":")[2])) as again:
                await eventually(lambda: again.has(CHANGED, *repositories))
                await eventually(lambda: unfinished(stack) == 0)


async def test_a_refused_change_is_parked_and_shown(stack: Stack, inngest: Inngest) -> None:
    async with stack.daemon(**inngest.settings) as daemon:
        bad, good = stack.app.repository(), stack.app.repository()
        await inngest.fail(refuse=str(bad), refuse_status=413)
        stack.app.add(stack.app.workspace(), bad, good)
        await eventually(lambda: inngest.has(SYNC, good))
        (line,) = await eventually(lambda: daemon.logged("change_abandoned", event_name=SYNC))
        assert line["repository_id"] == str(bad)
        await eventually(lambda: unfinished(stack) == 0)
        code, shown, _ = await stack.priorityd("status", PRIORITYD_HTTP_PORT=daemon.port)
        assert code == 0
        assert "         1  changes refused by Inngest" in shown


async def test_told_to_stop_it_announces_what_it_has_applied(stack: Stack, inngest: Inngest) -> None:
    async with stack.daemon(**inngest.settings) as daemon:
        await inngest.fail(delay=0.3)
        repositories = stack.app.repositories(700)
        stack.app.add(stack.app.workspace(), *repositories)
        await eventually(lambda: stack.app.wrong_rows() < 700)
        assert await daemon.stop() == 0
    assert unfinished(stack) == 0
    announced = await inngest.repositories(CHANGED)
    right = [row for row in repositories if stack.app.row(row) == ("high", True, 1)]
    assert sorted(announced) == sorted(map(str, right))


async def test_old_changes_are_taken_off_the_record(stack: Stack) -> None:
    stack.app.connection.execute(
        """insert into repository_priority_changes (
               tracked_repository_id, new_priority, is_workspace_repo, workspace_count, trigger, changed_at
           ) select gen_random_uuid(), 'high', true, 1, 'event', now() - make_interval(days => n)
           from generate_series(1, 100) n"""
    )
    async with stack.daemon(PRIORITYD_CHANGE_RETENTION_DAYS=30) as daemon:
        await eventually(lambda: daemon.logged("changes_trimmed"))
    (line,) = daemon.logged("changes_trimmed")
    assert line["changes"] == 71


@pytest.mark.kills
@pytest.mark.timeout(900)
async def test_killed_at_any_moment_every_change_is_announced_exactly_once(
    stack: Stack, inngest: Inngest
) -> None:
    """20 × kill -9 during 5,000 changes; ids make once out of at least once."""
    kills, changes, chunk = 20, 5000, 25
    dice = random.Random(20250103)
    settings = inngest.settings | {
        "PRIORITYD_DISPATCH_CLAIM_SECONDS": 2,
        "PRIORITYD_SWEEP_INTERVAL_SECONDS": 1,
    }
    # An answer takes a moment, so that some kills fall between accepting and marking.
    await inngest.fail(delay=0.05)
    async with stack.daemon(**settings):
        pass
    waiting = stack.app.repositories(changes)
    workspace = stack.app.workspace()
    for _ in range(kills):
        async with stack.daemon(ready=False, **settings) as daemon:
            await eventually(partial(daemon.logged, "dispatch_started"))
            moment = anyio.current_time() + dice.uniform(0.0, 2.0)
            for _ in range(changes // kills // chunk):
                stack.app.add(workspace, *waiting[:chunk])
                del waiting[:chunk]
                await anyio.sleep(dice.uniform(0.0, 0.1))
            await anyio.sleep_until(moment)
            daemon.process.send_signal(signal.SIGKILL)
            await daemon.process.wait()
    assert waiting == []
    async with stack.daemon(ready=False, **settings):
        await eventually(lambda: stack.app.wrong_rows() == 0)
        await eventually(lambda: unfinished(stack) == 0)

    query = "select id, dispatched_at is not null, attempts from repository_priority_changes order by id"
    rows = stack.app.connection.execute(query).fetchall()
    assert len(rows) == changes
    assert all(dispatched for _, dispatched, _ in rows)
    events = await inngest.accepted()
    for name in (CHANGED, SYNC):
        times = Counter(event["id"] for event in events if event["name"] == name)
        assert len(times) == changes, name
    told = {event["id"]: event["data"]["changeId"] for event in events if event["name"] == CHANGED}
    assert sorted(told.values()) == [change_id for change_id, _, _ in rows]
    repeats = len(events) - 2 * changes
    claimed_again = sum(attempts > 1 for _, _, attempts in rows)
    print(
        f"\n{len(events)} events accepted, {repeats} of them repeats; {claimed_again} changes claimed again"
    )
    assert claimed_again > 0, "no kill fell between claiming and marking, so nothing was tested"
