"""`python -m tests.benchmarks NAME`: run one measurement and print its JSON line."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import anyio
import anyio.to_thread

from daemon.sandbox.server import serve_sandbox
from tests.acceptance.application import Application
from tests.acceptance.conftest import NO_TIMER
from tests.acceptance.daemon_process import eventually, start_daemon
from tests.benchmarks.burst import burst
from tests.benchmarks.database import application
from tests.benchmarks.migrations import migrations
from tests.benchmarks.order import order
from tests.benchmarks.original import original
from tests.benchmarks.queueing import queue
from tests.benchmarks.resync import resync
from tests.benchmarks.sweep import sweep

CHANGES, CHANGES_PER_SECOND = 100, 5
TRACKED, MEMBERSHIPS = 100_000, 40_000


async def change_latency() -> dict[str, Any]:
    """Commit to applied, as the application sees it: adds, then removes, at 5 changes a second."""
    with application() as (url, app):
        async with serve_sandbox(url) as server:
            settings = {"SUPABASE_URL": server.url, "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key}
            async with start_daemon(**settings, **NO_TIMER):
                workspace, repositories = app.workspace(), app.repositories(CHANGES)
                adds = [await _seconds(app, app.add, workspace, each, "high") for each in repositories]
                removes = [
                    await _seconds(app, app.remove, workspace, each, "medium") for each in repositories
                ]
    return {"changes_per_second": CHANGES_PER_SECOND, "adds": _summary(adds), "removes": _summary(removes)}


async def _seconds(
    app: Application, change: Callable[..., None], workspace: Any, each: Any, wanted: str
) -> float:
    began = time.perf_counter()
    change(workspace, each)
    await eventually(lambda: app.row(each)[0] == wanted)
    took = time.perf_counter() - began
    await anyio.sleep(max(0.0, 1 / CHANGES_PER_SECOND - took))
    return took


def _summary(seconds: list[float]) -> dict[str, float]:
    p95 = quantiles(seconds, n=20)[-1]
    return {"p50_ms": round(median(seconds) * 1000, 1), "p95_ms": round(p95 * 1000, 1), "n": len(seconds)}


async def footprint() -> dict[str, Any]:
    """What the daemon takes of its machine: a minute at rest, then 40,000 changes in one transaction."""
    with application() as (url, app):
        repositories, workspace = app.repositories(TRACKED), app.workspace()
        async with serve_sandbox(url) as server:
            settings = {"SUPABASE_URL": server.url, "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key}
            async with start_daemon(**settings) as daemon:
                pid, began = daemon.process.pid, _cpu_seconds(daemon.process.pid)
                await anyio.sleep(60)
                at_rest = _memory(pid) | {"cpu_percent": round((_cpu_seconds(pid) - began) / 60 * 100, 2)}
                began, changed_at = _cpu_seconds(pid), time.perf_counter()
                app.add(workspace, *repositories[:MEMBERSHIPS])
                await eventually(lambda: app.wrong_rows() == 0, 300)
                after = _memory(pid) | {
                    "cpu_seconds": round(_cpu_seconds(pid) - began, 1),
                    "seconds": round(time.perf_counter() - changed_at, 1),
                }
    return {"tracked": TRACKED, "changes": MEMBERSHIPS, "at_rest": at_rest, "after_changes": after}


def _memory(pid: int) -> dict[str, float]:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    kib = {name: int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")}
    return {"resident_mib": round(kib["VmRSS"] / 1024), "highest_mib": round(kib["VmHWM"] / 1024)}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def migration_locks() -> dict[str, Any]:
    """How long each migration takes on 1,000,000 tracked rows, and whom it makes wait."""
    return await anyio.to_thread.run_sync(migrations)


BENCHMARKS: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
    "burst": burst,
    "change-latency": change_latency,
    "footprint": footprint,
    "migrations": migration_locks,
    "order": order,
    "original": original,
    "queue": queue,
    "resync": resync,
    "sweep": sweep,
}


def main() -> None:
    """Run the one that is named."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in BENCHMARKS:
        sys.exit(f"usage: python -m tests.benchmarks {{{'|'.join(BENCHMARKS)}}}")
    print(json.dumps({"benchmark": name, **anyio.run(BENCHMARKS[name])}))


main()
