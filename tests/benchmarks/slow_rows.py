"""A database where writing a row takes 40 ms, and a workspace of 1,000 repositories.

They are added, removed, and found at the start. The floor is arithmetic: one row after another takes 40 s. A
removal does not name its repositories, so sweeps find them; what is there at the start is found by the full
resync.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import anyio.to_thread

from tests.benchmarks.database import application
from tests.benchmarks.figures import Json, at_most
from tests.benchmarks.sandbox import sandbox_process
from tests.benchmarks.start import daemon_process
from tests.support.application import Application

REPOSITORIES = 1000
ROW_SECONDS = 0.04
LEAST_SECONDS = REPOSITORIES * ROW_SECONDS
_LONGEST_SECONDS = 15 * LEAST_SECONDS
_POLL_SECONDS = 0.1
_TRIGGER = f"""
create function slow() returns trigger language plpgsql as $$
begin perform pg_sleep({ROW_SECONDS}); return new; end $$;
create trigger slow before update on tracked_repositories for each row execute function slow();
"""


async def slow_rows() -> Json:
    """See the module's docstring."""
    return await anyio.to_thread.run_sync(_slow_rows)


def _slow_rows() -> Json:
    with _world() as (app, workspace, repositories, settings):
        with daemon_process(settings):
            added = _until_right(app, lambda: app.add(workspace, *repositories))
            removed = _until_right(app, lambda: app.remove(workspace, *repositories))
        app.add(workspace, *repositories)
        with daemon_process(settings, ready=False):
            met = _until_right(app, lambda: None)
    return {
        "repositories": REPOSITORIES,
        "row_seconds": ROW_SECONDS,
        "least_seconds": LEAST_SECONDS,
        "added_seconds": round(added, 1),
        "removed_seconds": round(removed, 1),
        "met_at_the_start_seconds": round(met, 1),
        "bars": {
            f"{name}_ratio": at_most(seconds / LEAST_SECONDS, 1.5)
            for name, seconds in (("added", added), ("removed", removed), ("met_at_the_start", met))
        },
    }


@contextmanager
def _world() -> Iterator[tuple[Application, UUID, list[UUID], dict[str, str]]]:
    with application() as (url, app):
        app.connection.execute(_TRIGGER.encode())
        workspace, repositories = app.workspace(), app.repositories(REPOSITORIES)
        with sandbox_process(url) as settings:
            yield app, workspace, repositories, settings


def _until_right(app: Application, change: Callable[[], None]) -> float:
    began = time.perf_counter()
    change()
    while app.wrong_rows():
        assert time.perf_counter() - began < _LONGEST_SECONDS, f"{app.wrong_rows()} rows are still wrong"
        time.sleep(_POLL_SECONDS)
    return time.perf_counter() - began
