"""`python -m tests.benchmarks NAME`: runs one benchmark and prints one line of JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from tests.benchmarks.application_writes import application_writes
from tests.benchmarks.burst import burst
from tests.benchmarks.fleet import CHANGES_PER_SECOND, fleet
from tests.benchmarks.garbage import garbage
from tests.benchmarks.idle import footprint, idle
from tests.benchmarks.large import Sizes
from tests.benchmarks.latency import latency
from tests.benchmarks.migrations import migrations
from tests.benchmarks.order import order
from tests.benchmarks.original import original
from tests.benchmarks.queueing import queue
from tests.benchmarks.resync import resync
from tests.benchmarks.scale import ROWS, scale
from tests.benchmarks.slow_rows import slow_rows
from tests.benchmarks.soak import SECONDS, soak
from tests.benchmarks.start import start
from tests.benchmarks.sweep import sweep
from tests.benchmarks.telemetry import telemetry
from tests.benchmarks.waiting import waiting


async def migration_locks() -> dict[str, Any]:
    """How long each migration takes on 1,000,000 tracked rows, and how long it blocks the application."""
    return await anyio.to_thread.run_sync(migrations)


BENCHMARKS: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
    "application": application_writes,
    "burst": burst,
    "fleet": fleet,
    "footprint": footprint,
    "garbage": garbage,
    "idle": idle,
    "latency": latency,
    "migrations": migration_locks,
    "order": order,
    "original": original,
    "queue": queue,
    "resync": resync,
    "scale": scale,
    "slow_rows": slow_rows,
    "soak": soak,
    "start": start,
    "sweep": sweep,
    "telemetry": telemetry,
    "waiting": waiting,
}


def main() -> None:
    """Run the named benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="Duration of `soak` or `fleet`.")
    parser.add_argument(
        "--rate", type=int, default=CHANGES_PER_SECOND, help="Changes per second for `fleet`."
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=ROWS, help="Numbers of tracked rows for `scale`."
    )
    parser.add_argument(
        "--tracked",
        type=int,
        default=Sizes.tracked,
        help="Tracked rows for `sweep` and `resync`, with three memberships for every ten rows.",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="The fraction of its full size at which to run `order`, such as 0.01.",
    )
    arguments = parser.parse_args()
    run = BENCHMARKS[arguments.name]
    if arguments.name == "soak":
        run = partial(soak, arguments.seconds)
    elif arguments.name == "order":
        run = partial(order, arguments.scale)
    elif arguments.name == "fleet":
        run = partial(fleet, arguments.seconds, arguments.rate)
    elif arguments.name == "scale":
        run = partial(scale, arguments.rows)
    elif arguments.name in ("resync", "sweep"):
        compare = resync if arguments.name == "resync" else sweep
        run = partial(compare, Sizes(arguments.tracked, arguments.tracked * 3 // 10))
    print(json.dumps({"benchmark": arguments.name, **anyio.run(run)}))


if __name__ == "__main__":
    main()
