"""Several daemons on one database: one does the timer work, and another takes over when it is gone."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from tests.support.daemon_process import Daemon, eventually
from tests.support.stack import NO_TIMER, Stack
from tests.support.troubles import heal, poison

OFTEN = {"PRIORITYD_SWEEP_INTERVAL_SECONDS": 0.5}


async def periodic_sweeps(daemon: Daemon) -> float:
    return await daemon.metric("resyncs_total", kind="sweep", trigger="sweep")


async def leader_of(daemons: Sequence[Daemon]) -> tuple[Daemon, Daemon]:
    """The leader and the other one."""
    leading = [await daemon.metric("leader") == 1 for daemon in daemons]
    assert sum(leading) == 1
    return daemons[leading.index(True)], daemons[leading.index(False)]


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
        assert await periodic_sweeps(other) > idle


async def _swept_more(daemon: Daemon, count: float) -> bool:
    return await periodic_sweeps(daemon) >= count


async def test_a_leader_that_is_stopped_gives_its_lease_up(stack: Stack) -> None:
    async with stack.daemon() as daemon:
        assert await daemon.metric("leader") == 1
        assert (await daemon.status())["leader"] is True
        assert await daemon.stop() == 0
    leases = stack.app.connection.execute("select count(*) from priorityd.leases").fetchone()
    assert leases == (0,)


async def test_one_that_stood_still_is_no_leader_until_it_is_given_the_lease_again(stack: Stack) -> None:
    async with stack.daemon(**OFTEN) as first, stack.daemon(**OFTEN) as second:
        leader, other = await leader_of([first, second])
        leader.process.send_signal(signal.SIGSTOP)
        await eventually(lambda: other.metric("leader"))
        leader.process.send_signal(signal.SIGCONT)
        assert await leader.metric("leader") == 0
        assert await other.metric("leader") == 1


async def test_a_lease_that_nobody_renews_is_told_of_by_who_stands_by(stack: Stack) -> None:
    """As when the database's clock is set back after the leader has gone."""
    async with stack.daemon() as daemon:
        stack.app.connection.execute(
            "update priorityd.leases set daemon_id = gen_random_uuid(),"
            " expires_at = now() + interval '50 minutes' where name = 'timer'"
        )
        (problem,) = await eventually(lambda: problems_of(daemon), 60)
        assert (problem["name"], problem["alert"]) == ("nobody_leads", "NobodyDoesTimerWork")
        assert (await daemon.status())["headline"] == problem["text"]
        stack.app.connection.execute("delete from priorityd.leases where name = 'timer'")
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
