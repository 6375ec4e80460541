"""Which parts no longer go round."""

from __future__ import annotations

from priorityd.daemon.liveness import Progress
from tests.support.daemon_process import eventually


async def test_a_part_that_no_longer_goes_round_is_named() -> None:
    progress = Progress(stalled_after_seconds=0.05)
    progress.beat("worker")
    progress.beat("listener")
    progress.ended("listener")
    assert progress.stalled() == []
    await eventually(lambda: progress.stalled() == ["worker"])
    progress.beat("worker")
    assert progress.stalled() == []
