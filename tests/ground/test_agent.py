"""The skeleton of all that works by turns."""

from __future__ import annotations

import anyio

from priorityd.daemon.agent import Agent
from priorityd.daemon.liveness import Liveness
from tests.support.daemon_process import eventually


class Counter(Agent):
    """Counts its turns; `left` of them still have to be taken on stop."""

    name = "counter"

    def __init__(self, liveness: Liveness, rest_seconds: float, left: int = 0) -> None:
        super().__init__(liveness)
        self.rest_seconds = rest_seconds
        self.turns = 0
        self.left = left
        self.ended_after: int | None = None

    async def turn(self) -> float:
        self.turns += 1
        if self._stopping:
            self.left -= 1
        return self.rest_seconds

    def has_more(self) -> bool:
        return self.left > 0

    async def at_end(self) -> None:
        self.ended_after = self.turns


async def test_rests_until_it_is_told_to_stop() -> None:
    counter = Counter(Liveness(), rest_seconds=3600)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(counter.run)
        await eventually(lambda: counter.turns == 1)
        await anyio.wait_all_tasks_blocked()
        counter.stop()
    assert (counter.turns, counter.ended_after) == (1, 1)


async def test_takes_the_turns_that_are_left_before_it_ends() -> None:
    counter = Counter(Liveness(), rest_seconds=0, left=3)
    counter.stop()
    await counter.run()
    assert counter.ended_after == 3


async def test_is_expected_to_go_round_until_it_has_ended() -> None:
    liveness = Liveness(stalled_after_seconds=-1)
    counter = Counter(liveness, rest_seconds=3600)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(counter.run)
        await eventually(lambda: liveness.stalled() == ["counter"])
        counter.stop()
    assert liveness.stalled() == []


async def test_turns_that_want_no_rest_let_others_run() -> None:
    counter = Counter(Liveness(), rest_seconds=0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(counter.run)
        await eventually(lambda: counter.turns > 10)
        counter.stop()
