"""`priorityd jobs`: lists and cancels ordered jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC
from typing import Final
from uuid import UUID

import click

from priorityd.core.errors import MAX_RETRY_AFTER_SECONDS, ExitCode
from priorityd.core.names import known_as
from priorityd.core.priorities import PRIORITIES
from priorityd.daemon.cli.output import SHOWN, print_json
from priorityd.daemon.cli.repositories import IdOrName, find_repository
from priorityd.daemon.database.store import Store
from priorityd.daemon.jobs.ordered_jobs import JobCounts, ListedJob, cancel_jobs, list_jobs
from priorityd.daemon.settings import Settings

_ASKS_SECONDS: Final = 90.0
"""A daemon that releases jobs asks for them every second, or every 20 s while Inngest accepts none. When it
last asked is known to within a minute."""
_WAITS_SECONDS: Final = MAX_RETRY_AFTER_SECONDS + _ASKS_SECONDS
"""Inngest or Supabase may tell it to wait for longer."""


async def list_command(
    _: Settings,
    store: Store,
    *,
    job_type: str | None,
    repository: IdOrName | None,
    limit: int,
    as_json: bool,
) -> ExitCode:
    """`priorityd jobs list`."""
    found = await find_repository(store, repository) if repository else None
    answer = await list_jobs(store, job_type, found.repository_id if found else None, limit)
    if as_json:
        print_json(asdict(answer))
        return ExitCode.DONE
    for job in answer.jobs:
        click.echo(_line(job))
    if not answer.jobs:
        click.echo("No ordered jobs are waiting or in flight.", err=True)
    elif answer.found > len(answer.jobs):
        click.echo(f"… and {answer.found - len(answer.jobs):,} more.", err=True)
    if any(job.state == "waiting" for job in answer.jobs) and (
        why := why_none_is_released(answer.asked_seconds)
    ):
        click.echo(why, err=True)
    return ExitCode.DONE


def why_none_is_released(asked_seconds: float | None) -> str | None:
    """A warning for waiting jobs if no daemon has asked for any lately; None if one has."""
    if asked_seconds is None:
        since = "none has ever asked for jobs"
    elif asked_seconds > _ASKS_SECONDS:
        since = f"none has asked for jobs for {asked_seconds:,.0f} s"
    else:
        return None
    if asked_seconds is not None and asked_seconds <= _WAITS_SECONDS:
        return (
            f"Perhaps no daemon is releasing them: {since}. If Inngest or Supabase has told it to wait, "
            f"a daemon does so for up to {MAX_RETRY_AFTER_SECONDS:.0f} s."
        )
    return (
        f"No daemon is releasing them: {since}. A daemon releases jobs if INNGEST_EVENT_KEY (or INNGEST_DEV) "
        "is set for it and PRIORITYD_RELEASE_JOBS is not off."
    )


def _line(job: ListedJob) -> str:
    place = f"{job.position:,}" if job.position is not None else job.state.replace("_", " ")
    again = f"  release {job.releases}" if job.releases > 1 else ""
    return (
        f"{place:>10}  {job.priority:<6}  {job.job_type:<22}  {known_as(job.repository_id, job.name)}  "
        f"queued {job.queued_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC  job {job.job_id}{again}"
    )


async def cancel_command(
    _: Settings,
    store: Store,
    *,
    job_ids: Sequence[UUID],
    repository: IdOrName | None,
    job_type: str | None,
    as_json: bool,
) -> ExitCode:
    """`priorityd jobs cancel`."""
    found = await find_repository(store, repository) if repository else None
    answer = await cancel_jobs(store, job_ids or None, found.repository_id if found else None, job_type)
    if as_json:
        print_json(asdict(answer))
    else:
        jobs = "1 job" if answer.cancelled == 1 else f"{answer.cancelled:,} jobs"
        click.echo(f"{jobs} {f'of {found.shown_as} ' if found else ''}cancelled")
    for refused in answer.refused[:SHOWN]:
        click.echo(f"Not cancelled: {refused.shown_as}: {refused.reason}", err=True)
    if len(answer.refused) > SHOWN:
        click.echo(f"… and {len(answer.refused) - SHOWN:,} more.", err=True)
    if answer.in_flight:
        verb = "is" if answer.in_flight == 1 else "are"
        click.echo(f"{answer.in_flight:,} {verb} in flight and can't be recalled.", err=True)
    if answer.locked:
        verb = "is" if answer.locked == 1 else "are"
        click.echo(f"{answer.locked:,} {verb} locked by other transactions: repeat the command.", err=True)
    others = len(set(job_ids)) - answer.cancelled - answer.in_flight - len(answer.refused) - answer.locked
    if not found and others > 0:
        click.echo(f"{others:,} of the jobs named are neither waiting nor in flight.", err=True)
    if answer.refused or answer.locked:
        return ExitCode.FAILED
    return ExitCode.DONE if answer.cancelled or not answer.in_flight else ExitCode.FAILED


def count_lines(counts: JobCounts) -> Iterator[str]:
    """The lines of `priorityd status` about ordered jobs."""
    counted = counts.jobs
    waiting: Counter[str] = Counter()
    in_flight: Counter[str] = Counter()
    for each in counted:
        waiting[each.priority] += each.waiting
        in_flight[each.priority] += each.in_flight
    lost = sum(each.lost for each in counted)
    oldest = max((each.oldest_seconds for each in counted), default=0.0)
    since = f", the oldest for {oldest:,.0f} s" if waiting.total() else ""
    yield f"{waiting.total():>10}  ordered jobs waiting{_by_priority(waiting)}{since}"
    yield f"{in_flight.total():>10}  ordered jobs in flight{_by_priority(in_flight)}"
    if lost:
        yield f"{lost:>10}  ordered jobs lost: no end was reported in time"
    if waiting.total() and (why := why_none_is_released(counts.asked_seconds)):
        yield why


def _by_priority(counts: Counter[str]) -> str:
    listed = ", ".join(f"{counts[priority]:,} {priority}" for priority in PRIORITIES if counts[priority])
    return f": {listed}" if listed else ""
