"""The algorithm of the TypeScript service that priorityd replaces, compared with a resync, and how a resync
grows.

The original marks all workspace repositories in one request, then counts and updates each in two of its own,
then reads and downgrades the rest in two. Both go through the same client and the same REST stand-in, without
a network between.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression, median

from priorityd.core.library.workspace_priority_sync import WorkspacePrioritySync
from priorityd.daemon.database.store import Store, open_store
from tests.benchmarks.database import application
from tests.benchmarks.figures import Json, at_least, at_most, ratios, spread
from tests.benchmarks.large import Sizes, fill, make_wrong
from tests.support.application import Application
from tests.support.servers import start_servers

TRACKED, MEMBERSHIPS = 2_000, 400
GROWTH = (200, 2_000, 20_000, 200_000)
ROUNDS = 5
REQUESTS = (Path(__file__).parent / "original.sql").read_text()


async def original(growth: Sequence[int] = GROWTH, rounds: int = ROUNDS) -> Json:
    """See the module's docstring. At each size a fifth is in a workspace, and a tenth is wrong."""
    sizes = [await _at(tracked, rounds, beside=tracked == TRACKED) for tracked in growth]
    (beside,) = [each for each in sizes if "original_seconds" in each]
    line = linear_regression(
        [each["tracked"] for each in sizes], [each["resync_seconds"]["median"] for each in sizes]
    )
    per_row = [each["microseconds_per_row"] for each in sizes[1:]]
    return {
        "tracked": TRACKED,
        "memberships": MEMBERSHIPS,
        "growth": sizes,
        "slope_microseconds_per_row": round(line.slope * 1e6, 2),
        "bars": {
            "times_faster": at_least(beside["times_faster"]["median"], 100),
            # This shows whether the cost grows faster than the rows: linear means that a row costs no more
            # among many.
            "cost_of_a_row_at_most_over_at_least_size": at_most(per_row[-1] / per_row[0], 1.0),
        },
    }


async def _at(tracked: int, rounds: int, *, beside: bool) -> Json:
    sizes = Sizes(tracked, tracked // 5)
    with application() as (url, app):
        fill(app, sizes)
        app.connection.execute(REQUESTS.encode())
        async with (
            start_servers(url) as server,
            open_store(server.url, server.service_role_key) as store,
        ):
            return await _compare(app, store, sizes, rounds, beside=beside)


async def _compare(app: Application, store: Store, sizes: Sizes, rounds: int, *, beside: bool) -> Json:
    originals, ours = [], []
    service = WorkspacePrioritySync(store, time.monotonic)
    await service.sync_all_priorities("resync")  # reads the catalogs and fills the caches of the session
    for _ in range(rounds):
        if beside:
            make_wrong(app, sizes.tracked // 10)
            began = time.perf_counter()
            await _original(store)
            originals.append(time.perf_counter() - began)
        make_wrong(app, sizes.tracked // 10)
        began = time.perf_counter()
        result = await service.sync_all_priorities("resync")
        ours.append(time.perf_counter() - began)
        assert result.priority_changes == sizes.tracked // 10
        assert app.wrong_rows() == 0
    answer: Json = {
        **sizes.as_json(),
        "resync_seconds": spread(ours, 4),
        "microseconds_per_row": round(median(ours) / sizes.tracked * 1e6, 2),
    }
    if beside:
        answer |= {
            "original_seconds": spread(originals),
            "times_faster": spread(ratios(originals, ours), 1),
        }
    return answer


async def _original(store: Store) -> None:
    """One after the other, as in the original."""
    ids = await store.call(list[str], "original_workspace_repositories")
    await store.call(object, "original_mark_high", p_ids=ids)
    for each in ids:
        count = await store.call(object, "original_count", p_id=each)
        await store.call(object, "original_set_count", p_id=each, p_count=count)
    others = await store.call(list[str], "original_tracked_only", p_ids=ids)
    await store.call(object, "original_downgrade", p_ids=others)
