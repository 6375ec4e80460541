"""What an idle daemon costs its machine, and how often it calls the database; then a large change."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import mean, median
from typing import Any

import anyio

from priorityd.daemon.sandbox.faults import Faults
from priorityd.daemon.sandbox.rest.errors import ApiError
from tests.benchmarks.database import application
from tests.benchmarks.figures import at_most, spread
from tests.benchmarks.process_costs import cpu_seconds, highest_mib, resident_mib
from tests.support.application import Application
from tests.support.daemon_process import eventually, priorityd, start_daemon
from tests.support.servers import start_servers

TRACKED, MEMBERSHIPS = 100_000, 40_000
REST_SECONDS = 120
"""After this time, what polls less often while nothing happens does so."""
MINUTE_SECONDS, MINUTES = 60, 4
"""Two calls are made every other minute, so the mean of an even number of minutes is judged."""

Settings = dict[str, Any]


async def idle() -> dict[str, Any]:
    """Minutes without changes, long enough after a start at which nothing was wrong."""
    async with _sandbox() as (app, settings, calls):
        app.add(app.workspace(), *app.repositories(TRACKED)[:MEMBERSHIPS])
        assert (await priorityd("sync", **settings))[0] == 0
        # It is not asked for its status, which takes two MiB the first time.
        async with start_daemon(ready=False, **settings) as daemon:
            await eventually(lambda: daemon.answers("/readyz", 200))
            await anyio.sleep(REST_SECONDS)
            minutes = [await _minute(daemon.process.pid, calls) for _ in range(MINUTES)]
    cpu = [minute["cpu_percent"] for minute in minutes]
    resident = [minute["resident_mib"] for minute in minutes]
    per_minute = [float(minute["rpcs"]) for minute in minutes]
    return {
        "tracked": TRACKED,
        "memberships": MEMBERSHIPS,
        "cpu_percent": spread(cpu),
        "resident_mib": spread(resident, 1),
        "rpcs_per_minute": spread(per_minute, 1),
        "minutes": minutes,
        "bars": {
            "cpu_percent": at_most(median(cpu), 0.3),
            "resident_mib": at_most(max(resident), 60, 1),
            "rpcs_per_minute": at_most(mean(per_minute), 12, 1),
        },
    }


async def _minute(pid: int, calls: Counter[str]) -> dict[str, Any]:
    calls.clear()
    used, began = cpu_seconds(pid), time.monotonic()
    await anyio.sleep(MINUTE_SECONDS)
    seconds = time.monotonic() - began
    return {
        "cpu_percent": round((cpu_seconds(pid) - used) / seconds * 100, 3),
        "resident_mib": round(resident_mib(pid), 1),
        "rpcs": round(calls.total() / seconds * 60),
        "by_function": dict(calls.most_common()),
    }


async def footprint() -> dict[str, Any]:
    """40,000 changes in one transaction: the most memory, and the time until no row is wrong."""
    async with _sandbox() as (app, settings, _):
        repositories, workspace = app.repositories(TRACKED), app.workspace()
        async with start_daemon(**settings) as daemon:
            pid = daemon.process.pid
            used, changed_at = cpu_seconds(pid), time.perf_counter()
            app.add(workspace, *repositories[:MEMBERSHIPS])
            await eventually(lambda: app.wrong_rows() == 0, 300)
            return {
                "tracked": TRACKED,
                "changes": MEMBERSHIPS,
                "seconds": round(time.perf_counter() - changed_at, 1),
                "cpu_seconds": round(cpu_seconds(pid) - used, 1),
                "resident_mib": round(resident_mib(pid)),
                "highest_mib": round(highest_mib(pid)),
            }


@asynccontextmanager
async def _sandbox() -> AsyncIterator[tuple[Application, Settings, Counter[str]]]:
    """The application, the settings of a daemon, and the calls that reach the REST API."""
    with application() as (url, app):
        async with start_servers(url) as server:
            settings: Settings = {
                "SUPABASE_URL": server.url,
                "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
            }
            yield app, settings, _counted(server.faults)


def _counted(faults: Faults) -> Counter[str]:
    """Counts calls by function: each call first asks here whether it is to fail."""
    calls: Counter[str] = Counter()
    ask = faults.rpc_failure

    def count(function: str) -> ApiError | None:
        calls[function] += 1
        return ask(function)

    faults.rpc_failure = count  # type: ignore[method-assign]
    return calls
