"""`priorityd jobs`: what waits in order and where, and cancelling it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final
from uuid import UUID

import click
from pydantic_core import to_jsonable_python

from priorityd.core.errors import ExitCode
from priorityd.core.priorities import PRIORITIES
from priorityd.daemon.database.store import Store
from priorityd.daemon.jobs.ordered_jobs import CountedJobs, ListedJob, cancel_jobs, list_jobs
from priorityd.daemon.settings import Settings

_SHOWN: Final = 5
"""Of many alike, so many are named."""


async def list_command(
    _: Settings,
    store: Store,
    *,
    job_type: str | None,
    repository_id: UUID | None,
    limit: int,
    as_json: bool,
) -> ExitCode:
    """`priorityd jobs list`."""
    answer = await list_jobs(store, job_type, repository_id, limit)
    if as_json:
        click.echo(json.dumps(to_jsonable_python(asdict(answer))))
        return ExitCode.DONE
    for job in answer.jobs:
        click.echo(_line(job))
    if not answer.jobs:
        click.echo("No jobs wait in order, and none is in flight.", err=True)
    elif answer.found > len(answer.jobs):
        click.echo(f"… and {answer.found - len(answer.jobs):,} more.", err=True)
    return ExitCode.DONE


def _line(job: ListedJob) -> str:
    place = f"{job.position:,}" if job.position is not None else job.state.replace("_", " ")
    again = f"  release {job.releases}" if job.releases > 1 else ""
    return (
        f"{place:>10}  {job.priority:<6}  {job.job_type:<22}  {job.repository_id}  "
        f"queued {job.queued_at:%Y-%m-%d %H:%M:%S} UTC  job {job.job_id}{again}"
    )


async def cancel_command(
    _: Settings,
    store: Store,
    *,
    job_ids: Sequence[UUID],
    repository_id: UUID | None,
    job_type: str | None,
    as_json: bool,
) -> ExitCode:
    """`priorityd jobs cancel`."""
    answer = await cancel_jobs(store, job_ids or None, repository_id, job_type)
    if as_json:
        click.echo(json.dumps(to_jsonable_python(asdict(answer))))
    else:
        click.echo(f"{answer.cancelled:,} jobs cancelled")
    for refused in answer.refused[:_SHOWN]:
        click.echo(f"Not cancelled: job {refused.job_id}: {refused.reason}", err=True)
    if len(answer.refused) > _SHOWN:
        click.echo(f"… and {len(answer.refused) - _SHOWN:,} more.", err=True)
    if answer.in_flight:
        click.echo(f"{answer.in_flight:,} are in flight, and can't be called back.", err=True)
    if answer.refused:
        return ExitCode.FAILED
    return ExitCode.DONE if answer.cancelled or not answer.in_flight else ExitCode.FAILED


def count_lines(counted: Sequence[CountedJobs]) -> Iterator[str]:
    """The lines of `priorityd status` about ordered jobs."""
    waiting: Counter[str] = Counter()
    in_flight: Counter[str] = Counter()
    for each in counted:
        waiting[each.priority] += each.waiting
        in_flight[each.priority] += each.in_flight
    lost = sum(each.lost for each in counted)
    oldest = max((each.oldest_seconds for each in counted), default=0.0)
    since = f", the oldest for {oldest:,.0f} s" if waiting.total() else ""
    yield f"{waiting.total():>10}  jobs that wait in order{_by_priority(waiting)}{since}"
    yield f"{in_flight.total():>10}  ordered jobs in flight{_by_priority(in_flight)}"
    if lost:
        yield f"{lost:>10}  ordered jobs that nobody has reported on"


def _by_priority(counts: Counter[str]) -> str:
    listed = ", ".join(f"{counts[priority]:,} {priority}" for priority in PRIORITIES if counts[priority])
    return f": {listed}" if listed else ""
