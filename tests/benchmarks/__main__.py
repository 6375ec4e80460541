"""`python -m tests.benchmarks NAME`: run one measurement and print its JSON line."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from daemon.sandbox.server import serve_sandbox
from tests.acceptance.application import Application
from tests.acceptance.daemon_process import priorityd
from tests.benchmarks.database import application
from tests.benchmarks.idle import footprint, idle
from tests.benchmarks.latency import latency
from tests.benchmarks.migrations import migrations
from tests.benchmarks.order import order
from tests.benchmarks.queueing import queue
from tests.benchmarks.soak import SECONDS, soak
from tests.benchmarks.start import start
from tests.benchmarks.telemetry import telemetry

TRACKED, MEMBERSHIPS = 100_000, 40_000


async def full_resync() -> dict[str, Any]:
    """`priorityd sync` over 100,000 tracked rows, all wrong at first, beside one hand-written UPDATE."""
    with application() as (url, app):
        repositories = app.repositories(TRACKED)
        app.add(app.workspace(), *repositories[:MEMBERSHIPS])
        _make_all_wrong(app)
        floor = _timed(lambda: app.connection.execute(_BY_HAND))
        assert app.wrong_rows() == 0
        _make_all_wrong(app)
        assert app.wrong_rows() == TRACKED
        async with serve_sandbox(url) as server:
            settings = {"SUPABASE_URL": server.url, "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key}
            runs = []
            for _ in range(2):
                began = time.perf_counter()
                code, out, err = await priorityd("sync", "--json", **settings)
                assert code == 0, err
                runs.append({"seconds": round(time.perf_counter() - began, 2), **json.loads(out)})
        assert app.wrong_rows() == 0
    ratio = round(runs[0]["seconds"] / floor, 2)
    return {
        "tracked": TRACKED,
        "memberships": MEMBERSHIPS,
        "by_hand_seconds": round(floor, 2),
        "ratio": ratio,
        "runs": runs,
    }


# Wrong in every row without looking like an override: flags turned round.
def _make_all_wrong(app: Application) -> None:
    app.connection.execute(
        "update tracked_repositories t set priority = 'low', workspace_count = 7, is_workspace_repo ="
        " not exists (select from workspace_repositories m where m.repository_id = t.repository_id)"
    )
    app.connection.execute("vacuum analyze tracked_repositories, workspace_repositories")


_BY_HAND = """
update tracked_repositories t
set is_workspace_repo = m.workspaces > 0, workspace_count = m.workspaces,
    priority = case when m.workspaces > 0 then 'high' else 'medium' end::repository_priority
from (
    select r.id, count(w.workspace_id)::integer as workspaces
    from tracked_repositories r left join workspace_repositories w using (repository_id) group by r.id
) m
where m.id = t.id
"""


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def migration_locks() -> dict[str, Any]:
    """How long each migration takes on 1,000,000 tracked rows, and whom it makes wait."""
    return await anyio.to_thread.run_sync(migrations)


BENCHMARKS: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
    "footprint": footprint,
    "full-resync": full_resync,
    "idle": idle,
    "latency": latency,
    "migrations": migration_locks,
    "order": order,
    "queue": queue,
    "soak": soak,
    "start": start,
    "telemetry": telemetry,
}


def main() -> None:
    """Run the one that is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="How long to soak.")
    arguments = parser.parse_args()
    run = partial(soak, arguments.seconds) if arguments.name == "soak" else BENCHMARKS[arguments.name]
    print(json.dumps({"benchmark": arguments.name, **anyio.run(run)}))


main()
