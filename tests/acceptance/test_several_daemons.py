"""Several daemons on one database: one does the timer work, and another takes over when it is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.daemon_process import Daemon, eventually
from tests.support.stack import NO_TIMER, Stack
from tests.support.troubles import heal, poison

OFTEN: dict[str, Any] = {"PRIORITYD_SWEEP_INTERVAL_SECONDS": 0.5}


async def periodic_sweeps(daemon: Daemon) -> float:
    return await daemon.metric("resyncs_total", kind="sweep", trigger="sweep")


async def leader_of(daemons: Sequence[Daemon]) -> tuple[Daemon, Daemon]:
    """The leader and the other one."""

    async def one_leads() -> list[bool]:
        # On a machine that is busy for longer than a lease, there is none for a while.
        leading = [await daemon.metric("leader") == 1 for daemon in daemons]
        return leading if sum(leading) == 1 else []

    leading = await eventually(one_leads)
    return daemons[leading.index(True)], daemons[leading.index(False)]


async def keep_the_lease(stack: Stack, holder: Daemon) -> None:
    """Whoever holds it holds it for most of an hour: he is stopped, so that he does not renew it."""
    holder.process.send_signal(signal.SIGSTOP)
    await in_thread(stack, "update priorityd.leases set expires_at = now() + interval '50 minutes'")


async def in_thread(stack: Stack, statement: str) -> None:
    """Execute what may wait for a transaction that the sandbox, in this event loop, has to end."""
    await anyio.to_thread.run_sync(lambda: stack.app.connection.execute(statement.encode()))


@pytest.mark.long
async def test_only_the_leader_sweeps_by_timer_and_the_other_takes_over_when_it_is_killed(
    stack: Stack,
) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    async with stack.daemon(**OFTEN) as first, stack.daemon(**OFTEN) as second:
        leader, other = await leader_of([first, second])
        swept, idle = await periodic_sweeps(leader), await periodic_sweeps(other)
        await eventually(lambda: _swept_more(leader, swept + 5))
        assert await periodic_sweeps(other) == idle
        await leader.stop(signal.SIGKILL)
        await eventually(lambda: other.metric("leader"))
        # What no stream announces is found again.
        app.connection.execute("alter publication supabase_realtime drop table workspace_repositories")
        app.add(workspace, repository)
        await eventually(lambda: app.row(repository)[0] == "high")
        await eventually(lambda: _swept_more(other, idle + 1))


async def _swept_more(daemon: Daemon, count: float) -> bool:
    return await periodic_sweeps(daemon) >= count


async def test_a_leader_that_is_stopped_gives_its_lease_up(stack: Stack) -> None:
    async with stack.daemon() as daemon:
        await eventually(lambda: daemon.metric("leader"))
        assert await daemon.stop() == 0
    leases = stack.app.connection.execute("select count(*) from priorityd.leases").fetchone()
    assert leases == (0,)


@pytest.mark.long
async def test_one_that_stood_still_is_no_leader_until_it_is_given_the_lease_again(stack: Stack) -> None:
    async with stack.daemon(**OFTEN) as first, stack.daemon(**OFTEN) as second:
        leader, other = await leader_of([first, second])
        leader.process.send_signal(signal.SIGSTOP)
        await eventually(lambda: other.metric("leader"))
        await keep_the_lease(stack, other)
        leader.process.send_signal(signal.SIGCONT)
        swept = await periodic_sweeps(leader)
        assert await leader.metric("leader") == 0
        assert (await leader.status())["leader"] is False
        assert await periodic_sweeps(leader) <= swept + 1, "one that it was at when it was stopped"
        other.process.send_signal(signal.SIGCONT)


@pytest.mark.long
async def test_one_whose_event_loop_stands_still_does_not_say_that_it_leads(
    stack: Stack, tmp_path: Path
) -> None:
    """Its endpoints have a thread of their own, which goes on; what they showed last becomes untrue."""
    fifos = [tmp_path / name for name in ("first", "second")]
    for fifo in fifos:
        os.mkfifo(fifo)
    settings: list[dict[str, Any]] = [
        OFTEN | {"module": "tests.support.blockable_daemon", "BLOCK_UNTIL": fifo} for fifo in fifos
    ]
    async with stack.daemon(**settings[0]) as first, stack.daemon(**settings[1]) as second:
        leader, other = await leader_of([first, second])
        leader.process.send_signal(signal.SIGUSR1)
        await eventually(lambda: other.metric("leader"))
        await keep_the_lease(stack, other)
        assert await leader.metric("leader") == 0
        fifos[leader is second].write_bytes(b"go on")
        assert (await leader.status())["leader"] is False
        other.process.send_signal(signal.SIGCONT)


@pytest.mark.long
async def test_a_lease_that_nobody_renews_is_told_of_by_who_stands_by(stack: Stack) -> None:
    """As when the database's clock is set back after the leader has gone."""
    async with stack.daemon() as daemon:
        await in_thread(
            stack,
            "update priorityd.leases set daemon_id = gen_random_uuid(),"
            " expires_at = now() + interval '50 minutes' where name = 'timer'",
        )
        (problem,) = await eventually(lambda: problems_of(daemon), 60)
        assert (problem["name"], problem["alert"]) == ("nobody_leads", "NobodyDoesTimerWork")
        assert (await daemon.status())["headline"] == problem["text"]
        await in_thread(stack, "delete from priorityd.leases where name = 'timer'")
        await eventually(lambda: daemon.metric("leader"), 60)
        assert await problems_of(daemon) == []


async def problems_of(daemon: Daemon) -> list[dict[str, str]]:
    problems: list[dict[str, str]] = (await daemon.status())["problems"]
    return problems


async def test_two_daemons_agree_and_write_each_change_once(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(40)
    async with stack.daemon(**NO_TIMER), stack.daemon(**NO_TIMER):
        for repository in repositories:
            app.add(workspace, repository)
        await eventually(lambda: app.wrong_rows() == 0)
        app.delete_workspace(workspace)
        await eventually(lambda: app.wrong_rows() == 0)
    changes = app.connection.execute("select count(*) from repository_priority_changes").fetchone()
    assert changes == (80,)


async def test_each_daemon_tries_its_own_parked_repositories_again(stack: Stack) -> None:
    app = stack.app
    workspace, repositories = app.workspace(), app.repositories(3)
    poison(stack, repositories[0])
    async with stack.daemon(**OFTEN) as first, stack.daemon(**OFTEN) as second:
        app.add(workspace, *repositories)
        for daemon in (first, second):
            await eventually(lambda daemon=daemon: daemon.metric("parked_repositories"))
        await heal(stack)
        await eventually(lambda: app.wrong_rows() == 0)
        for daemon in (first, second):
            await eventually(lambda daemon=daemon: _none_parked(daemon))


async def _none_parked(daemon: Daemon) -> bool:
    return await daemon.metric("parked_repositories") == 0
