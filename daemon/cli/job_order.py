"""Reads what `priorityd queue` is to queue, from arguments or lines, and looks the names up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID, uuid4

import click

from priorityd.core.errors import PermanentError
from priorityd.core.jobs.events import Job
from priorityd.core.jobs.validation import MAX_LEVELS, why_data_refused
from priorityd.core.vocabulary import JobType
from priorityd.daemon.cli.output import listed
from priorityd.daemon.cli.parameters import repository
from priorityd.daemon.cli.repositories import IdOrName, find_repositories
from priorityd.daemon.database.store import Store


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What to queue, as typed: repositories, and with an id optionally a name from the caller.

    `batch_id` is part of every event's id.
    """

    job_type: JobType
    batch_id: str
    named: Sequence[tuple[IdOrName, str | None]]
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class JobList:
    """What to queue, each repository once."""

    job_type: JobType
    batch_id: str
    jobs: Sequence[Job]
    duplicates: int


def read_jobs(
    job_type: JobType,
    repositories: Iterable[IdOrName],
    lines: BinaryIO | None,
    data: str | None,
    batch_id: str | None,
) -> JobOrder:
    """Read the repositories from the arguments and the lines, if given, and the jobs' data.

    Raises `click.UsageError` for anything that can't be read, before anything is queued.
    """
    named: list[tuple[IdOrName, str | None]] = [(each, None) for each in repositories]
    if lines is not None:
        named += _read_lines(lines)
    elif not named:
        raise click.UsageError("Name at least one repository, or use --stdin.")
    return JobOrder(job_type, batch_id or uuid4().hex, named, _read_data(job_type, data))


async def look_up_names(store: Store, order: JobOrder) -> JobList:
    """Replace names by ids. Raises `PermanentError` for a name that is unknown or ambiguous.

    Ids are not looked up: a job is queued even if the repository is unknown.
    """
    typed = list(dict.fromkeys(each for each, _ in order.named if isinstance(each, str)))
    found = await find_repositories(store, typed)
    ids = {name: each.repository_id for name, each in zip(typed, found, strict=True)}
    names: dict[UUID, str | None] = {}
    for each, name in order.named:
        key, own = (each, name) if isinstance(each, UUID) else (ids[each], each)
        names[key] = names.get(key) or own
    jobs = [
        Job(order.job_type, key, name, order.data, f"{order.batch_id}:{order.job_type}:{key}")
        for key, name in names.items()
    ]
    return JobList(order.job_type, order.batch_id, jobs, len(order.named) - len(names))


def _read_lines(lines: BinaryIO) -> Iterator[tuple[IdOrName, str | None]]:
    read: list[tuple[IdOrName, str | None]] = []
    bad = []
    text = lines.read().decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            read.append(_read_line(line.strip()))
        except click.BadParameter:
            bad.append(f"line {number}: {line.strip()!r:.80}")
    if bad:
        raise click.UsageError(f"Neither a uuid nor owner/name: {listed(bad)}. Nothing was queued.")
    return iter(read)


def _read_line(line: str) -> tuple[IdOrName, str | None]:
    first, *rest = line.split(maxsplit=1)
    try:
        return UUID(first), rest[0] if rest else None
    except ValueError:
        # A name may contain spaces.
        return repository(line), None


def _read_data(job_type: JobType, data: str | None) -> dict[str, object]:
    try:
        fields = json.loads(data or "{}")
    except ValueError as error:
        raise click.UsageError(f"--data is not JSON: {error}") from None
    except RecursionError:
        raise click.UsageError(f"--data: nested deeper than {MAX_LEVELS} levels.") from None
    if not isinstance(fields, dict):
        raise click.UsageError("--data must be a JSON object.")
    if reason := why_data_refused(fields):
        raise click.UsageError(f"--data: a job {reason}.")
    try:
        Job(job_type, UUID(int=0), None, fields)
    except PermanentError as error:
        raise click.UsageError(f"--data: {error}") from None
    return fields
