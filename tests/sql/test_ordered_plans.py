"""What a release costs, in pages that it looks at: the same whether 400 or 40,000 jobs wait."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.support.query_plans import explain
from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database

pytestmark = pytest.mark.plans

FILL = """
    insert into repositories select from generate_series(1, {repositories});
    insert into tracked_repositories (repository_id) select id from repositories;
    insert into workspaces select from generate_series(1, 20);
    insert into workspace_repositories (workspace_id, repository_id)
    select w.id, r.id
    from (select id, row_number() over () as n from repositories limit {repositories} / 5) r
    join (select id, row_number() over () as n from workspaces) w on w.n = 1 + r.n % 20;
    select sweep_workspace_priorities(p_limit => 100000);
    insert into background_jobs (type, repository_id, payload, created_at)
    select 'reviews', r.id, '{{}}', now() - make_interval(secs => g.n)
    from generate_series(1, 20) g (n) cross join repositories r;
    insert into priorityd.ordered_jobs (job_id, job_type, repository_id, queued_at)
    select id, type, repository_id, created_at from background_jobs;
    insert into priorityd.job_hints (repository_id) select id from repositories;
"""


def pages_of_a_release(world: World, repositories: int) -> int:
    """With 20 jobs each; every daemon's sessions have planned before."""
    world.execute(FILL.format(repositories=repositories))
    world.execute("vacuum (analyze)")
    daemon = uuid4()
    released: list[Any] = []
    while len(released) < 20:
        jobs = world.call("release_ordered_jobs", daemon, 10_000, 5)["jobs"]
        world.call("mark_jobs_sent", [job["job_id"] for job in jobs])
        released += jobs
    world.execute("update background_jobs set status = 'completed' where payload ? 'priority'")
    world.call("release_ordered_jobs", daemon, 1)
    world.execute("vacuum")
    (top, *_) = explain(world, f"select release_ordered_jobs('{daemon}', 2)")
    assert isinstance(top["Shared Hit Blocks"], int)
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


def test_a_release_looks_at_no_more_pages_when_a_hundred_times_as_many_wait(
    server: Any, template: str
) -> None:
    pages = []
    for repositories in (20, 2000):
        with server.database(template) as database:
            pages.append(pages_of_a_release(session(database), repositories))
    few, many = pages
    # Each index is a level or two deeper; anything that grew with the queue would be in the thousands.
    assert many < 2 * few + 50


def pages_of_the_next_release(world: World) -> int:
    (top, *_) = explain(world, f"select release_ordered_jobs('{uuid4()}', 10, 10)")
    assert isinstance(top["Shared Hit Blocks"], int)
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


def test_a_snapshot_held_open_makes_no_release_dearer(database: Database) -> None:
    """It keeps every row that is over, and in the end 16 times as many were over."""
    world, forgotten = session(database), session(database, autocommit=False)
    world.execute(FILL.format(repositories=100))
    world.call("release_ordered_jobs", uuid4(), 10, 10)
    forgotten.execute("set transaction isolation level repeatable read")
    forgotten.value("select count(*) from background_jobs")
    pages = []
    for releases in range(80):
        world.execute(
            "update background_jobs set status = 'completed' where payload ? 'priority' and status = 'queued'"
        )
        if releases in (5, 79):
            pages.append(pages_of_the_next_release(world))
        else:
            assert len(world.call("release_ordered_jobs", uuid4(), 10, 10)["jobs"]) == 10
    early, late = pages
    assert late < 2 * early


def test_a_snapshot_held_open_makes_no_hint_dearer(database: Database) -> None:
    """It keeps every hint that was followed, 16 times as many in the end, all of them of one repository."""
    world, forgotten = session(database), session(database, autocommit=False)
    repository = world.tracked()
    hint = f"select priorityd.leave_job_hints('{{reviews}}', '{{{repository}}}')"
    jobs = json.dumps([{"repository_id": str(repository)}])
    forgotten.execute("set transaction isolation level repeatable read")
    forgotten.value("select count(*) from background_jobs")
    pages = []
    for releases in range(80):
        world.call("release_ordered_jobs", uuid4(), 10_000, 10)
        if releases in (5, 79):
            (top, *_) = explain(world, hint)
            assert isinstance(top["Shared Hit Blocks"], int)
            pages.append(top["Shared Hit Blocks"] + top["Shared Read Blocks"])
        world.call("queue_repository_jobs", jobs, "reviews")
    early, late = pages
    assert late < 2 * early
