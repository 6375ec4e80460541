"""The calls of ordered jobs, and what the database has of them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

from tests.support.world import World

DAEMON = uuid4()
OUT = "select from priorityd.ordered_jobs where released_at is not null"
Json = dict[str, Any]


def queue(world: World, *repositories: UUID, job_type: str = "recent-prs", **fields: object) -> list[UUID]:
    jobs = [{"repository_id": str(each), **fields} for each in repositories]
    answer = world.call("queue_repository_jobs", json.dumps(jobs), job_type)
    assert answer["refused"] == []
    return [UUID(job["job_id"]) for job in answer["jobs"]]


def release(
    world: World, in_flight: int = 100, limit: int = 100, daemon: UUID = DAEMON, **named: Any
) -> Json:
    return world.call("release_ordered_jobs", daemon, in_flight, limit, **named)


def released(world: World, *args: Any, **named: Any) -> list[UUID]:
    return [UUID(job["job_id"]) for job in release(world, *args, **named)["jobs"]]


def sent(world: World, *jobs: UUID) -> None:
    world.call("mark_jobs_sent", list(jobs))


def end(world: World, *jobs: UUID, status: str = "completed") -> None:
    world.execute("update background_jobs set status = %s where id = any (%s)", status, list(jobs))


def held(world: World, workspace: UUID | None = None) -> UUID:
    """A repository in a workspace, and synced."""
    repository = world.tracked()
    world.add(repository, workspace)
    world.sync(repository)
    return repository


def job_row(world: World, job: UUID) -> Json:
    return world.value("select to_jsonb(b) from background_jobs b where id = %s", job)


def pass_time(world: World, interval: str) -> None:
    world.execute("update priorityd.ordered_jobs set lease_until = lease_until - %s::interval", interval)
