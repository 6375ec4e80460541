"""A sweep of a large database, compared with reading once what it has to read; both through the stand-in.

That is the memberships, by `priorityd.memberships()`, and the flagged rows.

There are two kinds of wrong rows. One is inconsistent in itself, as if it had been overwritten. The other
looks right: its change was missed, and only a comparison with the memberships finds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.repair.sweeper import SWEEP_LIMIT
from tests.benchmarks.database import application
from tests.benchmarks.figures import Json, at_most, ratios, spread
from tests.benchmarks.large import Sizes, fill, make_missed, make_wrong
from tests.support.application import Application
from tests.support.servers import start_servers

ROUNDS = 15
WRONG = 100
# Aggregated, so that no rows are sent: sending them would take longer than counting.
_FLOOR = """
create function public.read_once() returns jsonb language sql stable as $$
    select jsonb_build_array((
        select max(n)
        from (select repository_id, count(*) as n from priorityd.memberships() group by 1) counted
    ), (
        select sum(workspace_count) from public.tracked_repositories
        where is_workspace_repo and repository_id is not null
    ))
$$
"""


async def sweep(sizes: Sizes | None = None, rounds: int = ROUNDS) -> Json:
    """See the module's docstring."""
    sizes = sizes or Sizes()
    with application() as (url, app):
        fill(app, sizes)
        app.connection.execute(_FLOOR)
        async with (
            start_servers(url) as server,
            open_store(server.url, server.service_role_key) as store,
        ):
            clean = await _compare(app, store, rounds, 0, make_wrong)
            wrong = await _compare(app, store, rounds, WRONG, make_wrong)
            missed = await _compare(app, store, rounds, WRONG, make_missed)
    return {
        **sizes.as_json(),
        "wrong_rows": WRONG,
        "clean": clean,
        "wrong": wrong,
        "missed": missed,
        "bars": {
            "clean_ratio": at_most(clean["ratio"]["median"], 1.3),
            "wrong_ratio": at_most(wrong["ratio"]["median"], 1.6),
            "missed_ratio": at_most(missed["ratio"]["median"], 1.6),
        },
    }


async def _compare(
    app: Application, store: Store, rounds: int, wrong: int, spoil: Callable[[Application, int], None]
) -> Json:
    reading, sweeping, inside = [], [], []
    for number in range(rounds + 1):
        spoil(app, wrong)
        began = time.perf_counter()
        await store.call(tuple[int, int], "read_once")
        floor = time.perf_counter() - began
        began = time.perf_counter()
        answer = await store.sweep("sweep", SWEEP_LIMIT)
        took = time.perf_counter() - began
        assert answer.changed == wrong
        if number:  # the first run reads the catalogs and fills the caches of both sessions
            reading.append(floor)
            sweeping.append(took)
            inside.append(answer.database_seconds)
    assert app.wrong_rows() == 0
    return {
        "ratio": spread(ratios(sweeping, reading)),
        "floor_seconds": spread(reading),
        "sweep_seconds": spread(sweeping),
        "of_that_in_the_database": spread(inside),
    }
