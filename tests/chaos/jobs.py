"""Ordered jobs that never report, among others of their type that are done normally."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID, uuid4

from tests.chaos.database import insist
from tests.chaos.floods import in_background
from tests.chaos.world import World
from tests.support.daemon_process import eventually

LIMIT_SECONDS: Final = 30.0
"""By then the others must be done."""
GIVEN_UP_SECONDS: Final = 120.0
"""By then the unreported ones must be given up; only a few of them are tried again at a time."""
IN_FLIGHT: Final = 4
"""The type's places in flight: fewer than there are unreported jobs."""
_UNREPORTED, _OTHERS = 10, 10
_TYPE: Final = "reviews"
_POLL_SECONDS: Final = 0.1

_REPOSITORIES: Final = """
with r as (insert into repositories (id) select unnest(%(ids)s::uuid[]) on conflict do nothing)
insert into tracked_repositories (repository_id) select unnest(%(ids)s::uuid[]) on conflict do nothing
"""
# With the caller's ids: repeating it queues nothing twice.
_QUEUE: Final = """
select queue_repository_jobs(jsonb_agg(jsonb_build_object('repository_id', id, 'job_id', id)), %(type)s)
from unnest(%(ids)s::uuid[]) id
"""
_JOB_IDS: Final = """
select b.id from background_jobs b where b.repository_id = any (%(ids)s::uuid[])
"""
_DONE: Final = """
update background_jobs
set status = 'completed', started_at = clock_timestamp(), completed_at = clock_timestamp()
where id = any (%(ids)s::uuid[]) and status = 'queued'
"""
_LEASES_END: Final = """
update priorityd.ordered_jobs set lease_until = clock_timestamp()
where job_id = any (%(ids)s::uuid[]) and sent_at is not null
"""
_LEFT: Final = "select count(*) from background_jobs where id = any (%(ids)s::uuid[]) and status = 'queued'"


@asynccontextmanager
async def jobs_unreported(world: World) -> AsyncIterator[None]:
    """More of them than there are places, first in line; their leases expire at once each time."""
    lost, others = await _queue(world, _UNREPORTED), await _queue(world, _OTHERS)
    async with in_background(_end_leases(world, lost)), in_background(_work(world, set(others))):
        began = time.monotonic()
        await _await_end(world, others, LIMIT_SECONDS, "a job was not done, behind some without a report,")
        world.job_seconds.append(time.monotonic() - began)
        yield
        await _await_end(world, lost, GIVEN_UP_SECONDS, "a job without a report was not given up")


async def _queue(world: World, number: int) -> list[UUID]:
    ids = [uuid4() for _ in range(number)]
    await insist(world.url, _REPOSITORIES, {"ids": ids})
    await insist(world.url, _QUEUE, {"ids": ids, "type": _TYPE})
    return [id_ for (id_,) in await insist(world.url, _JOB_IDS, {"ids": ids})]


async def _end_leases(world: World, jobs: list[UUID]) -> None:
    while True:
        await insist(world.url, _LEASES_END, {"ids": jobs})
        await asyncio.sleep(_POLL_SECONDS)


async def _work(world: World, jobs: set[UUID]) -> None:
    """Do these jobs when their events arrive."""
    while True:
        arrived = [UUID(event["data"]["jobId"]) for event in world.event_api.runs]
        await insist(world.url, _DONE, {"ids": [job for job in arrived if job in jobs]})
        await asyncio.sleep(_POLL_SECONDS)


async def _await_end(world: World, jobs: list[UUID], limit_seconds: float, trouble: str) -> None:
    async def ended() -> bool:
        ((left,),) = await insist(world.url, _LEFT, {"ids": jobs})
        return not left

    try:
        await eventually(ended, limit_seconds)
    except AssertionError:
        world.fleet.note(f"{trouble} within {limit_seconds} s")
