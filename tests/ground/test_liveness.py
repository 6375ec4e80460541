"""Which parts no longer go round."""

from __future__ import annotations

from priorityd.daemon.liveness import Liveness
from tests.support.daemon_process import eventually


async def test_a_part_that_no_longer_goes_round_is_named() -> None:
    liveness = Liveness(stalled_after_seconds=0.05)
    liveness.tick("worker")
    liveness.tick("listener")
    liveness.ended("listener")
    assert liveness.stalled() == []
    await eventually(lambda: liveness.stalled() == ["worker"])
    liveness.tick("worker")
    assert liveness.stalled() == []
