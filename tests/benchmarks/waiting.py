"""1,000,000 ordered jobs of 10,000 workspaces: how fast they are queued and released, and whether each
workspace has its turn although one of them has queued a tenth of all jobs before the others.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from statistics import median
from typing import Any, Final
from uuid import uuid4

import anyio.to_thread

from tests.benchmarks.database import application
from tests.benchmarks.figures import Json, at_most
from tests.support.application import Application

JOBS: Final = 1_000_000
WORKSPACES: Final = 10_000
TURNS: Final = 2
"""How many turns each workspace has during the measurement."""
GIANT_SHARE, OUTSIDE_SHARE = 0.1, 0.4
IN_FLIGHT, BATCH, CALL = 1000, 100, 5000
_TYPE: Final = "recent-prs"

_FILL = """
insert into workspaces (name) select 'workspace ' || n from generate_series(1, {workspaces} - 1) n;
insert into workspaces (name) values ('giant');
insert into repositories (owner, name) select 'single', n from generate_series(2, {workspaces}) n;
insert into repositories (owner, name) select 'giant', n from generate_series(1, {giants}) n;
insert into repositories (owner, name) select 'outside', n from generate_series(1, {outside}) n;
insert into tracked_repositories (repository_id) select id from repositories;
insert into workspace_repositories (workspace_id, repository_id)
select w.id, r.id
from (select id, row_number() over () as n from workspaces where name <> 'giant') w
join (select id, row_number() over () as n from repositories where owner = 'single') r on r.n = w.n
union all
select w.id, r.id from workspaces w, repositories r where w.name = 'giant' and r.owner = 'giant';
analyze
"""
_QUEUE = """
select queue_repository_jobs(
    (select jsonb_agg(jsonb_build_object('repository_id', id)) from unnest(%s::uuid[]) id), %s)
"""
_WHOSE = """
select coalesce(w.name, 'none') from unnest(%s::uuid[]) j (id)
join background_jobs b on b.id = j.id
left join workspace_repositories m on m.repository_id = b.repository_id
left join workspaces w on w.id = m.workspace_id
"""


async def waiting(jobs: int = JOBS, workspaces: int = WORKSPACES) -> Json:
    """See the module's docstring."""
    return await anyio.to_thread.run_sync(_waiting, jobs, workspaces)


def _waiting(jobs: int, workspaces: int) -> Json:
    with application() as (_, app):
        sizes = {"workspaces": workspaces, "giants": workspaces // 10, "outside": workspaces}
        app.connection.execute(_FILL.format(**sizes).encode())
        while _call(app, "sweep_workspace_priorities()")["more"]:
            pass
        app.connection.execute("vacuum analyze")
        queueing = _queue(app, jobs)
        app.connection.execute("vacuum analyze")
        began = time.perf_counter()
        first = _until_placed(app)
        first_look = time.perf_counter() - began
        released, took, seconds = _release_turns(app, TURNS * workspaces, first)
    turns = Counter(released)
    giant, outside = turns.pop("giant", 0), turns.pop("none", 0)
    least = min(turns.values()) if len(turns) == workspaces - 1 else 0
    return {
        "jobs": jobs,
        "workspaces": workspaces,
        "queued_per_second": round(jobs / queueing),
        "first_look_seconds": round(first_look, 2),
        "released": len(released),
        "released_per_second": round(len(released) / seconds),
        "milliseconds_a_release_of_100": round(1000 * median(took), 1),
        "turns_of_a_workspace": {"least": least, "most": max(turns.values()), "of_the_giant": giant},
        "outside_workspaces": outside,
        "bars": {
            "turns_apart": at_most(max(*turns.values(), giant) - least, 1, 0),
        },
    }


def _queue(app: Application, jobs: int) -> float:
    """Queue the giant's jobs first, then those of the others, in turns; returns the seconds of all."""
    began = time.perf_counter()
    for owner, share in (
        ("giant", GIANT_SHARE),
        ("single", 1 - GIANT_SHARE - OUTSIDE_SHARE),
        ("outside", OUTSIDE_SHARE),
    ):
        query = "select id from repositories where owner = %s"
        ids = [row[0] for row in app.connection.execute(query, (owner,))]
        wanted = round(jobs * share)
        for first in range(0, wanted, CALL):
            chosen = [ids[number % len(ids)] for number in range(first, min(first + CALL, wanted))]
            answer = _value(app, _QUEUE, chosen, _TYPE)
            assert answer["refused"] == [], json.dumps(answer["refused"][:1])
    return time.perf_counter() - began


def _until_placed(app: Application) -> list[str]:
    """Release the first jobs: before that, the database places each repository."""
    while not (jobs := _release(app)):
        pass
    return jobs


def _release_turns(app: Application, wanted: int, jobs: list[str]) -> tuple[list[str], list[float], float]:
    """The workspaces of the jobs, in the order of their release; the seconds of each call, and of all."""
    released: list[str] = []
    took: list[float] = []
    began = time.perf_counter()
    while True:
        app.connection.execute("select mark_jobs_sent(%s::uuid[])", (jobs,))
        released += [row[0] for row in app.connection.execute(_WHOSE, (jobs,))]
        app.connection.execute(
            "update background_jobs set status = 'completed' where id = any (%s::uuid[])", (jobs,)
        )
        if len(released) >= wanted:
            return released, took, time.perf_counter() - began
        call_began = time.perf_counter()
        jobs = _release(app)
        took.append(time.perf_counter() - call_began)


def _release(app: Application) -> list[str]:
    answer = _value(app, "select release_ordered_jobs(%s, %s, %s)", uuid4(), IN_FLIGHT, BATCH)
    return [job["job_id"] for job in answer["jobs"]]


def _call(app: Application, call: str) -> Any:
    return _value(app, f"select {call}")


def _value(app: Application, query: str, *parameters: object) -> Any:
    row = app.connection.execute(query.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]
