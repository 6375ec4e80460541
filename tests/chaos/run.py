"""One run: the parts, then episodes of breaking, healing and measuring until the time is over.

An episode takes one fault or some from a shuffled deck of all, so that each kind has its turn, and lets them
overlap at random while the application works. After the last is healed the application rests, and the clock
runs until no row is wrong.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Final

from daemon.sandbox.postgres import embedded_postgres
from daemon.sandbox.server import serve_sandbox
from tests.acceptance.daemon_process import eventually
from tests.chaos.database import prepare
from tests.chaos.faults import FAULTS
from tests.chaos.fleet import Fleet
from tests.chaos.oracle import seconds_until_right, wrong_rows
from tests.chaos.proxy import serve_proxy
from tests.chaos.workload import Workload
from tests.chaos.world import World

RECOVERY_LIMIT_SECONDS: Final = 30.0
_GIVE_UP_SECONDS: Final = 120.0
_LIVE_SECONDS: Final = 120.0
_LEAST_PER_SECOND, _MOST_PER_SECOND = 20.0, 200.0


@dataclass
class Summary:
    """What a run did and found; `troubles` is empty when the daemons behaved."""

    seed: int
    seconds: float = 0.0
    daemons: int = 1
    operations: int = 0
    operations_refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    episodes: int = 0
    slowest_recovery_seconds: float = 0.0
    slowest_recovery_after: list[str] = field(default_factory=list)
    wrong_rows: int = 0
    restarts: int = 0
    live_at_end: bool = False
    troubles: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything was not as it must be."""
        slow = self.slowest_recovery_seconds > RECOVERY_LIMIT_SECONDS
        return bool(self.wrong_rows or slow or self.troubles or not self.live_at_end)

    def as_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self) | {"faults": dict(sorted(self.faults.items()))})


class Deck:
    """Names of faults in random order; shuffled anew when all have been drawn."""

    def __init__(self, names: list[str], chance: random.Random) -> None:
        self._names = names
        self._chance = chance
        self._left: list[str] = []

    def draw(self) -> list[str]:
        """One, or up to three different ones."""
        drawn: set[str] = set()
        for _ in range(self._chance.choice([1, 1, 1, 2, 3])):
            if not self._left:
                self._left = self._chance.sample(self._names, len(self._names))
            drawn.add(self._left.pop())
        return sorted(drawn)


async def run_chaos(
    *,
    seconds: float,
    seed: int,
    daemons: int = 1,
    kinds: Iterable[str] = FAULTS,
    longest_fault_seconds: float = 8.0,
    talk: bool = False,
) -> Summary:
    """Break things for so long, faults of these kinds; with `talk`, each episode is told on stderr."""
    summary, started_at = Summary(seed=seed, daemons=daemons), time.monotonic()
    async with _world(seed, daemons) as world:
        deck = Deck(sorted(kinds), world.chance)
        while time.monotonic() - started_at < seconds:
            names, taken = await _episode(world, summary, deck, longest_fault_seconds)
            if talk:
                print(f"{taken:6.2f} s after {', '.join(names)}", file=sys.stderr)
        summary.live_at_end = await _become_live(world)
        summary.wrong_rows = await wrong_rows(world.url)
        summary.operations, summary.operations_refused = world.workload.operations, world.workload.refused
    summary.restarts, summary.troubles = world.fleet.restarts, sorted(world.fleet.troubles)
    summary.seconds = round(time.monotonic() - started_at, 1)
    return summary


@asynccontextmanager
async def _world(seed: int, daemons: int) -> AsyncIterator[World]:
    chance = random.Random(seed)
    with embedded_postgres() as postgres:
        await asyncio.to_thread(prepare, postgres.url())
        async with (
            serve_sandbox(postgres.url()) as server,
            serve_proxy(int(server.url.rpartition(":")[2])) as proxy,
        ):
            fleet = Fleet(
                {
                    "SUPABASE_URL": f"http://127.0.0.1:{proxy.port}",
                    "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
                }
            )
            workload = Workload(postgres.url(), random.Random(chance.random()))
            world = World(postgres, server, proxy, fleet, workload, chance)
            tasks = [asyncio.create_task(fleet.keep(place)) for place in range(daemons)]
            tasks.append(asyncio.create_task(workload.run()))
            try:
                await eventually(lambda: _settled(world, daemons), 60)
                yield world
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)


async def _settled(world: World, daemons: int) -> bool:
    return len(world.fleet.running) == daemons and await world.fleet.all_live()


async def _episode(
    world: World, summary: Summary, deck: Deck, longest_fault_seconds: float
) -> tuple[list[str], float]:
    """Returns what was broken and how long it took until no row was wrong."""
    names = deck.draw()
    summary.faults.update(names)
    summary.episodes += 1
    world.workload.go_on(world.chance.uniform(_LEAST_PER_SECOND, _MOST_PER_SECOND))
    async with asyncio.TaskGroup() as overlapping:
        for name in names:
            delay = world.chance.uniform(0, longest_fault_seconds / 4)
            hold = world.chance.uniform(0.5, longest_fault_seconds)
            overlapping.create_task(_break(world, name, delay, hold))
    await world.workload.pause()
    taken = await seconds_until_right(world.url, _GIVE_UP_SECONDS)
    taken = _GIVE_UP_SECONDS if taken is None else taken
    if taken > summary.slowest_recovery_seconds:
        summary.slowest_recovery_seconds, summary.slowest_recovery_after = round(taken, 2), names
    return names, taken


async def _break(world: World, name: str, delay: float, hold: float) -> None:
    await asyncio.sleep(delay)
    async with FAULTS[name](world):
        await asyncio.sleep(hold)


async def _become_live(world: World) -> bool:
    try:
        await eventually(world.fleet.all_live, _LIVE_SECONDS)
    except AssertionError:
        return False
    return True
