"""`priorityd queue`: queues jobs from arguments or from a list, and reports the result."""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final
from uuid import UUID, uuid4

import click

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.errors import ExitCode, PermanentError
from priorityd.core.jobs.events import Job, event_name
from priorityd.core.jobs.validation import MAX_LEVELS, why_data_refused
from priorityd.core.priorities import PRIORITIES, score
from priorityd.core.vocabulary import JobType, QueueMode
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.store import Store
from priorityd.daemon.jobs.direct_queue import open_queue
from priorityd.daemon.jobs.queueing import JobsNotSentError, QueuedJob, QueueResult
from priorityd.daemon.settings import Settings

_SHOWN: Final = 5
"""Of many alike, so many are named."""


@dataclass(frozen=True, slots=True)
class JobList:
    """What is to be queued: each repository once. `batch_id` is part of every event's id."""

    job_type: JobType
    batch_id: str
    jobs: Sequence[Job]
    duplicates: int


def read_jobs(
    job_type: JobType,
    repository_ids: Iterable[UUID],
    lines: BinaryIO | None,
    data: str | None,
    batch_id: str | None,
) -> JobList:
    """The jobs that the arguments and, if given, the lines name.

    Raises `click.UsageError` for what can't be read, before anything is queued.
    """
    named: list[tuple[UUID, str | None]] = [(key, None) for key in repository_ids]
    if lines is not None:
        named += _read_lines(lines)
    elif not named:
        raise click.UsageError("Name at least one repository id, or use --stdin.")
    names: dict[UUID, str | None] = {}
    for key, name in named:
        names[key] = names.get(key) or name
    batch = batch_id or uuid4().hex
    fields = _read_data(data)
    try:
        jobs = [Job(job_type, key, name, fields, f"{batch}:{job_type}:{key}") for key, name in names.items()]
    except PermanentError as error:
        raise click.UsageError(f"--data: {error}") from None
    return JobList(job_type, batch, jobs, len(named) - len(names))


def _read_lines(lines: BinaryIO) -> Iterator[tuple[UUID, str | None]]:
    read, bad = [], []
    text = lines.read().decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        try:
            read.append((UUID(words[0]), words[1].strip() if len(words) > 1 else None))
        except ValueError:
            bad.append(f"line {number}: {words[0]!r:.80}")
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise click.UsageError(f"No repository id in {', '.join(bad[:_SHOWN])}{more}. Nothing was queued.")
    return iter(read)


def _read_data(data: str | None) -> dict[str, object]:
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
    return fields


async def queue_command(
    settings: Settings, store: Store, *, jobs: JobList, mode: QueueMode | None, as_json: bool
) -> ExitCode:
    """`priorityd queue`."""
    mode = mode or settings.queue_mode
    # What was imported never becomes garbage; looking through it in mid-work would take a tenth of a second.
    gc.disable()
    async with open_queue(settings, store, mode) as queue:
        started_at = monotonic()
        why: JobsNotSentError | None = None
        with _progress(len(jobs.jobs)) as progress:
            try:
                result = await queue.queue_jobs(jobs.jobs, progress.show)
            except JobsNotSentError as error:
                result, why = error.result, error
            except BaseException:
                _say(f"Interrupted after {progress.sent:,} of {len(jobs.jobs):,} jobs. {_go_on(jobs)}")
                raise
        seconds = monotonic() - started_at
    _show_words(jobs, result, seconds)
    if why is not None:
        _say(f"priorityd: {why}\n{_go_on(jobs)}")
    if as_json:
        click.echo(json.dumps(_as_json(jobs, result, why, seconds)))
    else:
        _list_left(result)
    if why is not None:
        return why.exit_code
    return ExitCode.FAILED if result.refused else ExitCode.DONE


class _Progress:
    """How many jobs Inngest has accepted; `draw` gets how many more, and the total."""

    def __init__(self, draw: Callable[[int, int], None]) -> None:
        self._draw = draw
        self.sent = 0

    def show(self, result: QueueResult) -> None:
        """Called after each request."""
        newly, self.sent = len(result.sent) - self.sent, len(result.sent)
        self._draw(newly, self.sent)


@contextmanager
def _progress(total: int) -> Iterator[_Progress]:
    def line(_: int, sent: int) -> None:
        if sent < total:
            _say(f"{sent:,} of {total:,} jobs queued")

    if not sys.stderr.isatty():
        yield _Progress(line)
        return
    with click.progressbar(length=total, label="Queueing", file=sys.stderr) as bar:
        yield _Progress(lambda newly, _: bar.update(newly))


def _say(words: str) -> None:
    click.echo(words, err=True)


def _go_on(jobs: JobList) -> str:
    return (
        f"To go on, repeat the command with --batch-id {jobs.batch_id} within 24 hours: "
        "what Inngest has already is not run twice."
    )


def _show_words(jobs: JobList, result: QueueResult, seconds: float) -> None:
    if not jobs.jobs:
        _say("The list is empty: nothing was queued.")
        return
    if jobs.duplicates:
        _say(f"{jobs.duplicates:,} ids were named more than once, and are queued once.")
    priorities = ", ".join(f"{count:,} {word}" for word, count in _by_priority(result.sent).items() if count)
    which = f": {priorities}" if priorities else ""
    _say(f"{len(result.sent):,} of {len(jobs.jobs):,} jobs queued in {seconds:.1f} s{which}")
    unknown = Counter(queued.look_up for queued in result.sent if not _found(queued))
    if unknown["untracked"]:
        _say(f"{unknown['untracked']:,} of them have no tracked row, and are queued at medium.")
    if unknown["failed"]:
        _say(
            f"{unknown['failed']:,} of them could not be looked up, and are queued at medium: "
            f"{result.look_up_errors[0]}"
        )
    for refused in result.refused[:_SHOWN]:
        _say(f"Refused: {refused.job.repository_id}: {refused.reason}")
    if len(result.refused) > _SHOWN:
        _say(f"… and {len(result.refused) - _SHOWN:,} more were refused.")


def _found(queued: QueuedJob) -> bool:
    return isinstance(queued.look_up, RepositoryPriority)


def _by_priority(sent: Sequence[QueuedJob]) -> dict[str, int]:
    counted = Counter(queued.priority for queued in sent)
    return {priority: counted[priority] for priority in PRIORITIES}


def _list_left(result: QueueResult) -> None:
    """In the form that --stdin reads."""
    for job in [refused.job for refused in result.refused] + result.not_sent:
        click.echo(f"{job.repository_id}\t{job.repository_name or ''}".rstrip())


def _as_json(
    jobs: JobList, result: QueueResult, why: JobsNotSentError | None, seconds: float
) -> dict[str, object]:
    return {
        "job_type": jobs.job_type,
        "event": event_name(jobs.job_type),
        "batch_id": jobs.batch_id,
        "queued": len(result.sent),
        "by_priority": _by_priority(result.sent),
        "duplicates": jobs.duplicates,
        "look_ups": result.look_ups,
        "look_up_errors": result.look_up_errors,
        "seconds": round(seconds, 3),
        "jobs": [_job_json(queued) for queued in result.sent],
        "refused": [{"repository_id": str(r.job.repository_id), "reason": r.reason} for r in result.refused],
        "not_sent": [str(job.repository_id) for job in result.not_sent],
        "error": str(why) if why else None,
    }


def _job_json(queued: QueuedJob) -> dict[str, object]:
    return {
        "repository_id": str(queued.job.repository_id),
        "event_id": queued.event_id,
        "priority": queued.priority,
        "score": score(queued.priority),
        "look_up": "found" if _found(queued) else queued.look_up,
    }
