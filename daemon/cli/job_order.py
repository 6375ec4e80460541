"""What `priorityd queue` is to queue: read from arguments, or from lines, and its names looked up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final
from uuid import UUID, uuid4

import click

from priorityd.core.errors import PermanentError
from priorityd.core.jobs.events import Job
from priorityd.core.jobs.validation import MAX_LEVELS, why_data_refused
from priorityd.core.vocabulary import JobType
from priorityd.daemon.cli.parameters import repository
from priorityd.daemon.cli.repositories import Words, find_repositories
from priorityd.daemon.database.store import Store

_SHOWN: Final = 5
"""Of many alike, so many are named."""


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What is to be queued, as it was typed: repositories, each id with a name of the caller's if it has one.

    `batch_id` is part of every event's id.
    """

    job_type: JobType
    batch_id: str
    named: Sequence[tuple[Words, str | None]]
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class JobList:
    """What is to be queued: each repository once."""

    job_type: JobType
    batch_id: str
    jobs: Sequence[Job]
    duplicates: int


def read_jobs(
    job_type: JobType,
    repositories: Iterable[Words],
    lines: BinaryIO | None,
    data: str | None,
    batch_id: str | None,
) -> JobOrder:
    """The jobs that the arguments and, if given, the lines name.

    Raises `click.UsageError` for what can't be read, before anything is queued.
    """
    named: list[tuple[Words, str | None]] = [(word, None) for word in repositories]
    if lines is not None:
        named += _read_lines(lines)
    elif not named:
        raise click.UsageError("Name at least one repository, or use --stdin.")
    return JobOrder(job_type, batch_id or uuid4().hex, named, _read_data(job_type, data))


async def look_up_names(store: Store, order: JobOrder) -> JobList:
    """The jobs. Raises `PermanentError` for a name that is unknown or not unique.

    Ids are taken as they are: a job of a repository that nobody knows is queued, too.
    """
    words = list(dict.fromkeys(word for word, _ in order.named if isinstance(word, str)))
    ids = dict(
        zip(words, (each.repository_id for each in await find_repositories(store, words)), strict=True)
    )
    names: dict[UUID, str | None] = {}
    for word, name in order.named:
        key, own = (word, name) if isinstance(word, UUID) else (ids[word], word)
        names[key] = names.get(key) or own
    jobs = [
        Job(order.job_type, key, name, order.data, f"{order.batch_id}:{order.job_type}:{key}")
        for key, name in names.items()
    ]
    return JobList(order.job_type, order.batch_id, jobs, len(order.named) - len(names))


def _read_lines(lines: BinaryIO) -> Iterator[tuple[Words, str | None]]:
    read: list[tuple[Words, str | None]] = []
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
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise click.UsageError(f"No repository in {', '.join(bad[:_SHOWN])}{more}. Nothing was queued.")
    return iter(read)


def _read_line(line: str) -> tuple[Words, str | None]:
    first, *rest = line.split(maxsplit=1)
    try:
        return UUID(first), rest[0] if rest else None
    except ValueError:
        # A name may have blanks in it.
        return repository(line), None


def _read_data(job_type: JobType, data: str | None) -> dict[str, object]:
    try:
        fields = json.loads(data or "{}")
    except ValueError as error:
        raise click.UsageError(f"--data is no JSON: {error}") from None
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
