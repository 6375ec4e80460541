"""Which parts no longer go round."""

from __future__ import annotations

from priorityd.daemon.liveness import Liveness
from tests.support.daemon_process import eventually
from tests.support.patience import PATIENCE_SECONDS


async def test_a_part_that_no_longer_goes_round_is_named() -> None:
    liveness = Liveness(stalled_after_seconds=0.05)
    liveness.tick("worker")
    liveness.tick("listener")
    liveness.ended("listener")
    await eventually(lambda: liveness.stalled() == ["worker"])


def test_a_part_that_goes_round_is_not() -> None:
    liveness = Liveness(stalled_after_seconds=PATIENCE_SECONDS)
    liveness.tick("worker")
    assert liveness.stalled() == []
