"""Queues jobs to wait in the database, where their order follows their repositories' priorities.

Nothing is looked up: what counts is the priority when a job is released. Queueing works while Inngest is
down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

import structlog

from priorityd.core.errors import PermanentError, PriorityError
from priorityd.core.jobs.events import Job, LookUp
from priorityd.core.jobs.released import event_id
from priorityd.core.jobs.validation import size_of, split_jobs, why_too_large
from priorityd.daemon.database.store import Store
from priorityd.daemon.jobs.ordered_jobs import Queued, queue_in_order
from priorityd.daemon.jobs.queueing import JobsNotSentError, QueuedJob, Queueing, QueueResult, RefusedJob

log = structlog.stdlib.get_logger()

PAGE_SIZE: Final = 500
"""Jobs per call."""
PAGE_BYTES: Final = 4 * 1024 * 1024
"""Job data per call; a larger job is sent alone."""
_JOB_IDS: Final = UUID("5f0e0f46-5f5b-4d63-9d5a-0a5f6c2a7f6e")
"""The namespace of row ids: the same job id always gives the same row, so a repeat queues nothing twice."""


class OrderedQueue(Queueing):
    """See the module's docstring. Make one with `daemon.jobs.direct_queue.open_job_queue`.

    A job's id, if it has one, determines the id of its row: such a job is never queued twice, however late it
    is repeated.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def queue_jobs(
        self, jobs: Iterable[Job], on_progress: Callable[[QueueResult], None] = lambda _: None
    ) -> QueueResult:
        """Queue jobs, in their order; `on_progress` sees the result grow.

        Jobs that are refused, here or by the database, are in the result. Raises `JobsNotSentError` if the
        database can't be reached or refuses the key.
        """
        result = QueueResult()
        accepted, refused = split_jobs(job if job.id else replace(job, id=uuid4().hex) for job in jobs)
        for job, reason in refused:
            _refuse(result, job, reason)
        pages = list(_pages(accepted, result))
        for number, page in enumerate(pages):
            try:
                answer = await queue_in_order(self._store, [_element(job) for job in page])
            except PriorityError as error:
                result.not_sent = [job for rest in pages[number:] for job in rest]
                raise JobsNotSentError(result, error) from error
            _add(result, page, answer)
            on_progress(result)
        return result

    def forget(self, repository_id: UUID) -> None:
        """Do nothing: nothing is cached."""


def job_id(job: Job) -> UUID:
    """The id of the job's row. Raises `PermanentError` if the job has no id."""
    if job.id is None:
        raise PermanentError("A job without an id has no row", reason="rejected")
    return uuid5(_JOB_IDS, job.id)


def _pages(jobs: Iterable[Job], result: QueueResult) -> Iterator[list[Job]]:
    page: list[Job] = []
    size = 0
    for job in jobs:
        job_size = size_of(job)
        if reason := why_too_large(job_size):
            _refuse(result, job, reason)
            continue
        if page and (len(page) == PAGE_SIZE or size + job_size > PAGE_BYTES):
            yield page
            page, size = [], 0
        page.append(job)
        size += job_size
    if page:
        yield page


def _element(job: Job) -> dict[str, Any]:
    return {
        "job_id": str(job_id(job)),
        "job_type": job.job_type,
        "repository_id": str(job.repository_id),
        "repository_name": job.repository_name,
        "data": dict(job.data),
    }


def _add(result: QueueResult, page: Sequence[Job], answer: Queued) -> None:
    by_id = {job_id(job): job for job in page}
    for each in answer.jobs:
        look_up: LookUp = each.tracked or "untracked"
        result.sent.append(QueuedJob(by_id[each.job_id], event_id(each.job_id), each.priority, look_up))
    for refused in answer.refused:
        _refuse(result, page[refused.position - 1], refused.reason)


def _refuse(result: QueueResult, job: Job, reason: str) -> None:
    log.warning("job_refused", repository_id=str(job.repository_id), name=job.repository_name, error=reason)
    result.refused.append(RefusedJob(job, reason))
