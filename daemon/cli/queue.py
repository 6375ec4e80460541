"""`priorityd queue`: queues jobs from arguments or from a list, and reports the result."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.errors import ExitCode, PriorityError
from priorityd.core.jobs.events import Job, event_name
from priorityd.core.names import known_as
from priorityd.core.priorities import PRIORITIES, score
from priorityd.core.vocabulary import QueueMode
from priorityd.daemon.cli.job_order import JobList, JobOrder, look_up_names
from priorityd.daemon.cli.jobs import why_none_is_released
from priorityd.daemon.cli.output import SHOWN, print_json
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.store import Store
from priorityd.daemon.jobs.direct_queue import open_queue
from priorityd.daemon.jobs.ordered_jobs import count_jobs
from priorityd.daemon.jobs.queueing import JobsNotSentError, QueuedJob, QueueResult
from priorityd.daemon.settings import Settings


async def queue_command(
    settings: Settings, store: Store, *, order: JobOrder, mode: QueueMode | None, as_json: bool
) -> ExitCode:
    """`priorityd queue`."""
    mode = mode or settings.queue_mode
    jobs = await look_up_names(store, order)
    # Imported modules never become garbage; a collection that scanned them would take a tenth of a second.
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
                _say(
                    f"Interrupted after {progress.sent:,} of {len(jobs.jobs):,} jobs. {_how_to_resume(jobs)}"
                )
                raise
        seconds = monotonic() - started_at
    _summarise(jobs, result, seconds)
    if why is not None:
        _say(f"priorityd: {why}\n{_how_to_resume(jobs)}")
    if as_json:
        print_json(_as_json(jobs, result, why, seconds))
    else:
        _list_not_queued(result)
    if mode == "ordered" and result.sent and (idle := await _why_none_is_released(store)):
        _say(idle)
    if why is not None:
        return why.exit_code
    return ExitCode.FAILED if result.refused else ExitCode.DONE


async def _why_none_is_released(store: Store) -> str | None:
    try:
        return why_none_is_released((await count_jobs(store)).asked_seconds)
    except PriorityError:
        return None


class _Progress:
    """Counts the jobs accepted so far; `draw` gets how many are new, and the count."""

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


def _say(message: str) -> None:
    click.echo(message, err=True)


def _how_to_resume(jobs: JobList) -> str:
    return (
        f"To resume, repeat the command with --batch-id {jobs.batch_id} within 24 hours: "
        "jobs that Inngest already has do not run twice."
    )


def _summarise(jobs: JobList, result: QueueResult, seconds: float) -> None:
    if not jobs.jobs:
        _say("The list is empty: nothing was queued.")
        return
    if jobs.duplicates:
        _say(f"Duplicates ignored: {jobs.duplicates:,}. Each repository is queued once.")
    counts = ", ".join(f"{count:,} {name}" for name, count in _by_priority(result.sent).items() if count)
    _say(
        f"{len(result.sent):,} of {len(jobs.jobs):,} jobs queued in {seconds:.1f} s"
        + (f": {counts}" if counts else "")
    )
    unknown = Counter(queued.look_up for queued in result.sent if not _found(queued))
    if unknown["untracked"]:
        _say(f"At medium because they have no tracked row: {unknown['untracked']:,}.")
    if unknown["failed"]:
        _say(
            f"At medium because their priority could not be looked up: {unknown['failed']:,} "
            f"({result.look_up_errors[0]})"
        )
    for refused in result.refused[:SHOWN]:
        _say(f"Refused: {_shown(refused.job)}: {refused.reason}")
    if len(result.refused) > SHOWN:
        _say(f"… and {len(result.refused) - SHOWN:,} more were refused.")


def _shown(job: Job) -> str:
    return known_as(job.repository_id, job.repository_name)


def _found(queued: QueuedJob) -> bool:
    return isinstance(queued.look_up, RepositoryPriority)


def _by_priority(sent: Sequence[QueuedJob]) -> dict[str, int]:
    counted = Counter(queued.priority for queued in sent)
    return {priority: counted[priority] for priority in PRIORITIES}


def _list_not_queued(result: QueueResult) -> None:
    """List them in the form that --stdin reads."""
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
        "refused": [{**_repository_json(each.job), "reason": each.reason} for each in result.refused],
        "not_sent": [_repository_json(job) for job in result.not_sent],
        "error": str(why) if why else None,
    }


def _repository_json(job: Job) -> dict[str, str | None]:
    return {"repository_id": str(job.repository_id), "name": job.repository_name}


def _job_json(queued: QueuedJob) -> dict[str, object]:
    return {
        **_repository_json(queued.job),
        "event_id": queued.event_id,
        "priority": queued.priority,
        "score": score(queued.priority),
        "look_up": "found" if _found(queued) else queued.look_up,
    }
