"""One run: starts the parts, then has episodes of breaking, healing and measuring until the time is over.

An episode draws one or several faults from a shuffled deck, so that each kind has its turn, and lets them
overlap at random while the application works. After the last is healed the application pauses, and the time
is measured until no row is wrong.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from priorityd.daemon.sandbox.postgres import embedded_postgres
from priorityd.daemon.sandbox.worlds import PLAIN
from tests.chaos import leaders, oracle
from tests.chaos.clock import Clock
from tests.chaos.database import prepare
from tests.chaos.deck import Deck
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.fleet import LIVE_SECONDS, Fleet
from tests.chaos.jobs import IN_FLIGHT
from tests.chaos.summary import Summary
from tests.chaos.workload import Workload
from tests.chaos.world import World
from tests.support.daemon_process import eventually
from tests.support.event_api import EVENT_KEY, EventApi, serve_event_api
from tests.support.faults import Faults
from tests.support.plans import TEAM
from tests.support.proxy import serve_proxy
from tests.support.servers import start_servers

_GIVE_UP_SECONDS: Final = 120.0
_UNPARKED_SECONDS: Final = 30.0
_LEAST_HOLD_SECONDS: Final = 0.5
_LONG_ONE_IN: Final = 8
_LEAST_PER_SECOND, _MOST_PER_SECOND = 20.0, 200.0


@dataclass(frozen=True)
class Plan:
    """What to do: break things for `seconds`, and with `every_kind` until each of `kinds` has happened.

    Most faults are held for up to `usual_seconds`, one in eight for up to `longest_seconds`. With `talk` each
    episode is reported on stderr. `world` is the schema of the application.
    """

    seed: int
    seconds: float = 0.0
    every_kind: bool = False
    daemons: int = 1
    kinds: Iterable[str] = field(default_factory=lambda: sorted(FAULTS))
    usual_seconds: float = 8.0
    longest_seconds: float = 60.0
    talk: bool = False
    world: str = PLAIN


async def run_chaos(plan: Plan) -> Summary:
    """Do the run, and return its summary."""
    summary = Summary(seed=plan.seed, daemons=plan.daemons, world=plan.world)
    kinds = {name: FAULTS[name] for name in plan.kinds}
    async with open_world(plan) as world:
        # The daemons are live, however long that has taken.
        started_at = time.monotonic()
        deck = Deck(kinds, [name for name, fault in kinds.items() if fault.is_alone], world.chance)
        while time.monotonic() - started_at < plan.seconds or (plan.every_kind and not deck.all_seen):
            await _episode(world, plan, summary, deck.draw())
        summary.live_at_end = await _become_live(world)
        await _judge(world, summary)
    summary.restarts, summary.troubles = world.fleet.restarts, sorted(world.fleet.troubles)
    summary.seconds = round(time.monotonic() - started_at, 1)
    return summary


@asynccontextmanager
async def open_world(plan: Plan, **settings: object) -> AsyncIterator[World]:
    """The parts of a run, with these additional settings for its daemons; the application begins paused."""
    chance = random.Random(plan.seed)
    with (
        embedded_postgres() as postgres,
        tempfile.TemporaryDirectory(prefix="chaos-") as directory,
        Clock(Path(directory)) as clock,
    ):
        await asyncio.to_thread(prepare, postgres.url(), plan.world)
        event_api = EventApi()
        async with (
            serve_event_api(event_api) as events_url,
            start_servers(postgres.url(), faults=Faults(), settings=TEAM) as server,
            serve_proxy(int(server.url.rpartition(":")[2])) as proxy,
        ):
            fleet = Fleet(
                {
                    "SUPABASE_URL": f"http://127.0.0.1:{proxy.port}",
                    "SUPABASE_SECRET_KEY": server.secret_key,
                    "INNGEST_EVENT_KEY": EVENT_KEY,
                    "INNGEST_EVENT_API_BASE_URL": events_url,
                    "PRIORITYD_DISPATCH_CHANGES": "false",
                    "PRIORITYD_JOBS_IN_FLIGHT": IN_FLIGHT,
                }
                | clock.settings
                | settings
            )
            workload = Workload(postgres.url(), random.Random(chance.random()), plan.world)
            world = World(postgres, server, proxy, fleet, workload, clock, chance, event_api, plan.world)
            tasks = [asyncio.create_task(fleet.keep(place)) for place in range(plan.daemons)]
            tasks += [asyncio.create_task(workload.run()), asyncio.create_task(leaders.watch(fleet))]
            try:
                await eventually(lambda: _settled(world, plan.daemons), 60)
                yield world
            finally:
                for task in tasks:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                for error in outcomes:
                    if isinstance(error, Exception):
                        fleet.note(f"the harness itself failed: {error!r}")


async def _settled(world: World, daemons: int) -> bool:
    return len(world.fleet.running) == daemons and await world.fleet.all_live()


async def _episode(world: World, plan: Plan, summary: Summary, names: list[str]) -> None:
    world.workload.go_on(world.chance.uniform(_LEAST_PER_SECOND, _MOST_PER_SECOND))
    async with asyncio.TaskGroup() as overlapping:
        for name in names:
            delay = world.chance.uniform(0, plan.usual_seconds / 4) if len(names) > 1 else 0.0
            hold = _hold(world, plan, FAULTS[name])
            summary.longest_fault_seconds = round(max(summary.longest_fault_seconds, hold), 1)
            overlapping.create_task(_break(world, FAULTS[name], delay, hold))
    healed_at = time.monotonic()
    await world.workload.pause()
    if await oracle.seconds_until_right(world.url, _GIVE_UP_SECONDS, world.name) is None:
        world.fleet.note(f"rows stayed wrong after {', '.join(names)}")
    taken = time.monotonic() - healed_at
    summary.count(names, taken)
    summary.unwritable |= await oracle.unwritable(world.url, world.name)
    if plan.talk:
        print(f"{taken:6.2f} s after {', '.join(names)}", file=sys.stderr)
    await _nothing_parked(world)


def _hold(world: World, plan: Plan, fault: Fault) -> float:
    if fault.seconds is not None:
        return min(fault.seconds, plan.longest_seconds)
    if world.chance.randrange(_LONG_ONE_IN) == 0:
        return world.chance.uniform(min(plan.usual_seconds, plan.longest_seconds), plan.longest_seconds)
    return world.chance.uniform(_LEAST_HOLD_SECONDS, plan.usual_seconds)


async def _break(world: World, fault: Fault, delay: float, hold: float) -> None:
    await asyncio.sleep(delay)
    async with fault.breaks(world):
        await asyncio.sleep(hold)


async def _nothing_parked(world: World) -> None:
    async def nothing_parked() -> bool:
        return not await world.fleet.parked() - await oracle.may_be_parked(world.url, world.name)

    try:
        await eventually(nothing_parked, _UNPARKED_SECONDS)
    except AssertionError:
        world.fleet.note(f"a repository was still parked {_UNPARKED_SECONDS} s after it was healed")


async def _become_live(world: World) -> bool:
    try:
        await eventually(world.fleet.all_live, LIVE_SECONDS)
    except AssertionError:
        return False
    return True


async def _judge(world: World, summary: Summary) -> None:
    summary.wrong_rows = await oracle.wrong_rows(world.url, world.name)
    summary.false_records = await oracle.false_records(world.url)
    summary.audit_entries = await oracle.audit_entries(world.url)
    broken = await oracle.broken_audit(world.url)
    summary.broken_audit = len(broken)
    for entry in broken[:3]:
        world.fleet.note(f"an audit entry does not fit: {entry}")
    summary.deadlocks = await oracle.deadlocks(world.url)
    summary.operations, summary.operations_refused = world.workload.operations, world.workload.refused
    summary.operations_per_second = round(summary.operations / max(world.workload.busy_seconds, 1.0), 1)
    summary.unharmed_changes = len(world.unharmed_seconds)
    summary.slowest_takeover_seconds = round(max(world.takeover_seconds, default=0.0), 2)
    summary.slowest_job_seconds = round(max(world.job_seconds, default=0.0), 2)
    summary.slowest_unharmed_seconds = round(max(world.unharmed_seconds, default=0.0), 2)
