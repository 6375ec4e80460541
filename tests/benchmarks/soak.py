"""Minutes of steady changes: whether memory grows, the event loop is blocked, or work piles up."""

from __future__ import annotations

import random
import tempfile
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any, Final

import anyio
import anyio.to_thread

from tests.benchmarks.database import application
from tests.benchmarks.figures import at_most, percentile
from tests.benchmarks.process_costs import cpu_seconds, resident_mib
from tests.benchmarks.sandbox import sandbox_process
from tests.support.application import Application
from tests.support.daemon_process import Daemon, eventually, start_daemon

CHANGES_PER_SECOND: Final = 100
SECONDS: Final = 600.0
REPOSITORIES: Final = 5_000
_SAMPLE_SECONDS: Final = 5.0
_WARM_SHARE: Final = 0.1
"""The share of the time before memory is measured: the first minute of ten."""
_MOST_PENDING: Final = 2 * CHANGES_PER_SECOND

Sample = tuple[float, float, float]


async def soak(seconds: float = SECONDS) -> dict[str, Any]:
    """Equal numbers of additions and removals for this number of seconds."""
    with tempfile.TemporaryDirectory() as directory, application() as (url, app):
        lag_file = Path(directory) / "lags"
        with sandbox_process(url) as settings:
            probe: dict[str, Any] = {"module": "tests.benchmarks.lag_probe", "LAG_FILE": lag_file}
            async with start_daemon(**settings, **probe) as daemon:
                used = cpu_seconds(daemon.process.pid)
                samples, changes = await _load(app, daemon, seconds)
                used = cpu_seconds(daemon.process.pid) - used
                await eventually(lambda: app.wrong_rows() == 0, 30)
                assert await daemon.stop() == 0
        lags = array("f", lag_file.read_bytes())
    return _report(seconds, changes, samples, lags) | {"cpu_percent": round(used / seconds * 100, 1)}


async def _load(app: Application, daemon: Daemon, seconds: float) -> tuple[list[Sample], int]:
    samples: list[Sample] = []
    changes = 0
    began = time.monotonic()

    async def sample() -> None:
        while True:
            pending = await daemon.metric("pending_repositories")
            samples.append((time.monotonic() - began, resident_mib(daemon.process.pid), pending))
            await anyio.sleep(_SAMPLE_SECONDS)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sample)
        changes = await anyio.to_thread.run_sync(_change, app, seconds)
        tasks.cancel_scope.cancel()
    return samples, changes


def _change(app: Application, seconds: float) -> int:
    """A change every 10 ms, by the clock: delays are made up for."""
    workspace, outside = app.workspace(), app.repositories(REPOSITORIES)
    random.shuffle(outside)
    inside = [outside.pop() for _ in range(REPOSITORIES // 2)]
    app.add(workspace, *inside)
    began, changes = time.monotonic(), 0
    while (now := time.monotonic()) < began + seconds:
        if changes >= (now - began) * CHANGES_PER_SECOND:
            time.sleep(0.001)
            continue
        source, target, change = (outside, inside, app.add) if changes % 2 else (inside, outside, app.remove)
        repository = source.pop(random.randrange(len(source)))
        change(workspace, repository)
        target.append(repository)
        changes += 1
    return changes


def _report(seconds: float, changes: int, samples: Sequence[Sample], lags: Sequence[float]) -> dict[str, Any]:
    warm = [sample for sample in samples if sample[0] >= seconds * _WARM_SHARE]
    slope = linear_regression([at / 60 for at, _, _ in warm], [mib for _, mib, _ in warm]).slope
    pending = [pending for _, _, pending in warm]
    return {
        "seconds": seconds,
        "changes": changes,
        "changes_per_second": round(changes / seconds, 1),
        "resident_mib": [round(mib, 1) for _, mib, _ in samples[:: max(1, len(samples) // 20)]],
        "loop_lag_ms": {f"p{percent}": round(percentile(lags, percent) * 1000, 2) for percent in (50, 95, 99)}
        | {"greatest": round(max(lags) * 1000, 1), "n": len(lags)},
        "bars": {
            "resident_mib_per_minute": at_most(slope, 0.2),
            "loop_lag_p99_ms": at_most(percentile(lags, 99) * 1000, 20, 2),
            "pending_repositories": at_most(max(pending), _MOST_PENDING, 0),
        },
    }
