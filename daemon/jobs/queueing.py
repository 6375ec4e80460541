"""What both job queues have in common: their methods and results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from priorityd.core.errors import PermanentError, PriorityError
from priorityd.core.jobs.events import Job, LookUp
from priorityd.core.priorities import Priority
from priorityd.core.vocabulary import JobType


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A queued job: its event's id, its priority now, and the look-up that the priority is based on."""

    job: Job
    event_id: str
    priority: Priority
    look_up: LookUp


@dataclass(frozen=True, slots=True)
class RefusedJob:
    """A job that will never be accepted, and why."""

    job: Job
    reason: str


@dataclass(slots=True)
class QueueResult:
    """The outcome of the jobs. `look_ups` counts the calls made, `look_up_errors` says why some failed."""

    sent: list[QueuedJob] = field(default_factory=list)
    refused: list[RefusedJob] = field(default_factory=list)
    not_sent: list[Job] = field(default_factory=list)
    look_ups: int = 0
    look_up_errors: list[str] = field(default_factory=list)


class JobsNotSentError(PriorityError):
    """Sending ended early. `result` says what was sent and what was not, `cause` why.

    Jobs in `not_sent` may have been accepted nevertheless, if an answer was lost. Queued again as they are
    there, with their ids, they do not run twice.
    """

    def __init__(self, result: QueueResult, cause: PriorityError) -> None:
        total = len(result.sent) + len(result.refused) + len(result.not_sent)
        super().__init__(f"{len(result.not_sent):,} of {total:,} jobs were not sent: {cause}")
        self.result = result
        self.cause = cause
        self.exit_code = cause.exit_code


class Queueing(ABC):
    """A queue of jobs. Make one with `daemon.jobs.direct_queue.open_job_queue`."""

    async def queue_job(
        self,
        job_type: JobType,
        repository_id: UUID,
        repository_name: str | None = None,
        *,
        data: Mapping[str, object] | None = None,
        event_id: str | None = None,
    ) -> QueuedJob:
        """Queue one job. Raises `PermanentError` if it is refused, and what `queue_jobs` raises."""
        job = Job(job_type, repository_id, repository_name, data or {}, event_id)
        result = await self.queue_jobs([job])
        if result.refused:
            raise PermanentError(f"The job was refused: {result.refused[0].reason}", reason="rejected")
        return result.sent[0]

    @abstractmethod
    async def queue_jobs(
        self, jobs: Iterable[Job], on_progress: Callable[[QueueResult], None] = lambda _: None
    ) -> QueueResult:
        """Queue jobs; `on_progress` sees the result grow.

        Refused jobs are in the result. Raises `JobsNotSentError` if not all of the others could be queued.
        """

    @abstractmethod
    def forget(self, repository_id: UUID) -> None:
        """Drop what is cached for a repository, because it has changed."""
