"""Queues jobs at Inngest with their repositories' priorities, which are looked up first.

Look-ups go out in pages of 500, a few at a time, while events for what they have found are already being
sent. A failed look-up delays its jobs only briefly: they are queued at medium, and say so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final
from uuid import UUID, uuid4

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.errors import PermanentError, PriorityError, TransientError
from priorityd.core.inngest.outgoing_events import OutgoingEvent, Refused, size_bytes
from priorityd.core.jobs.events import Job, LookUp, is_urgent, job_event, priority_of
from priorityd.core.jobs.send_order import SendOrder
from priorityd.core.jobs.validation import split_jobs
from priorityd.core.library.membership_cache import MembershipCache
from priorityd.core.vocabulary import PriorityForm, QueueMode
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.inngest.sender import EventSender, open_event_sender
from priorityd.daemon.jobs.ordered_queue import OrderedQueue
from priorityd.daemon.jobs.queueing import JobsNotSentError, QueuedJob, Queueing, QueueResult, RefusedJob
from priorityd.daemon.settings import Settings
from priorityd.daemon.wakeup import Wakeup

log = structlog.stdlib.get_logger()

LOOK_UP_PAGE_SIZE: Final = 500
"""Repositories per look-up call."""
LOOK_UPS_AT_ONCE: Final = 4
LONGEST_WRITING_SECONDS: Final = 1.0
"""A request that has not been written by then no longer holds up the preparation of the next."""
LOOK_UP_SECONDS: Final = 10.0
"""The longest that jobs wait for one look-up, its retries included; the database gives up then as well."""


class DirectQueue(Queueing):
    """See the module's docstring. Make one with `open_job_queue`.

    Look-ups are cached for five minutes; a caller that learns of a change calls `forget`.
    """

    def __init__(self, store: Store, sender: EventSender, *, form: PriorityForm = "score") -> None:
        self._store = store
        self._sender = sender
        self._form = form
        self._known: MembershipCache[RepositoryPriority] = MembershipCache()

    async def queue_jobs(
        self, jobs: Iterable[Job], on_progress: Callable[[QueueResult], None] = lambda _: None
    ) -> QueueResult:
        """Queue jobs, those of workspace repositories first; `on_progress` sees the result grow.

        Refused jobs are in the result. Raises `JobsNotSentError` if Inngest can't be reached or refuses the
        key.
        """
        accepted, refused = split_jobs(jobs)
        run = _Run(accepted, self._form, on_progress)
        for job, reason in refused:
            run.refuse_job(job, reason)
        cause: PriorityError | None = None
        ready, to_send = anyio.create_memory_object_stream[Sequence[OutgoingEvent]](0)
        async with to_send, anyio.create_task_group() as tasks:
            tasks.start_soon(self._look_up_all, run)
            tasks.start_soon(self._prepare_all, run, ready)
            try:
                await self._send_all(run, to_send)
            except PriorityError as error:
                cause = error
                tasks.cancel_scope.cancel()
        if cause is not None:
            raise JobsNotSentError(run.result, cause) from cause
        return run.result

    def forget(self, repository_id: UUID) -> None:
        """Drop what is cached for a repository, because it has changed."""
        self._known.drop(repository_id)

    async def _prepare_all(
        self, run: _Run, prepared: MemoryObjectSendStream[Sequence[OutgoingEvent]]
    ) -> None:
        """Prepare the next request while the answer to the last one is awaited."""
        async with prepared:
            while not run.order.is_over:
                batch = run.order.take()
                if batch:
                    await prepared.send(batch)
                    await self._sender.written.wait(LONGEST_WRITING_SECONDS)
                else:
                    await run.more_known.wait()

    async def _send_all(
        self, run: _Run, prepared: MemoryObjectReceiveStream[Sequence[OutgoingEvent]]
    ) -> None:
        try:
            async for batch in prepared:
                run.refuse(await self._sender.send(batch, run.accept))
        finally:
            run.close()

    async def _look_up_all(self, run: _Run) -> None:
        run.learn(self._known.get_all(run.repository_ids, monotonic()))
        unknown = run.unknown
        limiter = anyio.CapacityLimiter(LOOK_UPS_AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for start in range(0, len(unknown), LOOK_UP_PAGE_SIZE):
                page = unknown[start : start + LOOK_UP_PAGE_SIZE]
                tasks.start_soon(self._look_up, run, page, limiter)
        run.all_known()

    async def _look_up(self, run: _Run, page: Sequence[UUID], limiter: anyio.CapacityLimiter) -> None:
        async with limiter:
            generation, now = self._known.generation, monotonic()
            found = None if run.look_ups_given_up else await self._ask(run, page)
        if found is None:
            run.learn(dict.fromkeys(page, "failed"))
            return
        for key, entry in found.items():
            self._known.put(key, entry, now, generation)
        run.learn({key: found.get(key, "untracked") for key in page})

    async def _ask(self, run: _Run, page: Sequence[UUID]) -> dict[UUID, RepositoryPriority] | None:
        run.result.look_ups += 1
        try:
            with anyio.fail_after(LOOK_UP_SECONDS):
                return await self._store.priorities(page)
        except TimeoutError:
            error: PriorityError = TransientError("no answer in time", reason="timeout")
        except PriorityError as raised:
            error = raised
        # A permanent error concerns this page alone; any other would hit, or delay, the next one as well.
        run.look_ups_given_up |= not isinstance(error, PermanentError)
        run.result.look_up_errors.append(str(error))
        log.warning("priority_lookup_failed", repositories=len(page), error=str(error))
        return None


class _Run:
    """One call of `queue_jobs`: what is known, what is under way, and the outcome."""

    def __init__(
        self, jobs: Iterable[Job], form: PriorityForm, on_progress: Callable[[QueueResult], None]
    ) -> None:
        self.result = QueueResult()
        self.order = SendOrder()
        self.more_known = Wakeup()
        self.look_ups_given_up = False
        # Each job gets an id right away, so that one that was not sent can be queued again without harm.
        self._jobs = [job if job.id else replace(job, id=uuid4().hex) for job in jobs]
        self._form = form
        self._on_progress = on_progress
        self._jobs_of: dict[UUID, list[int]] = {}
        for number, job in enumerate(self._jobs):
            self._jobs_of.setdefault(job.repository_id, []).append(number)
        self._unknown = dict.fromkeys(self._jobs_of)
        self._built: list[tuple[OutgoingEvent, bool] | None] = [None] * len(self._jobs)
        self._ordered = 0
        self._under_way: dict[int, tuple[OutgoingEvent, QueuedJob]] = {}

    @property
    def repository_ids(self) -> list[UUID]:
        """The repositories of the jobs, each once, in the jobs' order."""
        return list(self._jobs_of)

    @property
    def unknown(self) -> list[UUID]:
        """The repositories that are still to be looked up."""
        return list(self._unknown)

    def learn(self, look_ups: Mapping[UUID, LookUp]) -> None:
        """Build the events that can be built now; each is passed on after those of the jobs before it."""
        for key, look_up in look_ups.items():
            self._unknown.pop(key, None)
            for number in self._jobs_of[key]:
                self._built[number] = self._build(self._jobs[number], look_up), is_urgent(look_up)
        while self._ordered < len(self._built) and (built := self._built[self._ordered]) is not None:
            self.order.add(built[0], urgent=built[1])
            self._ordered += 1
        self.more_known.set()

    def all_known(self) -> None:
        """Every look-up is over."""
        self.order.complete()
        self.more_known.set()

    def accept(self, events: Sequence[OutgoingEvent], _ids: Sequence[str]) -> None:
        """Inngest has accepted these."""
        self.result.sent += [self._under_way.pop(id(event))[1] for event in events]
        self._on_progress(self.result)

    def refuse(self, refusals: Sequence[Refused]) -> None:
        """Inngest will never accept these."""
        for refusal in refusals:
            self.refuse_job(self._under_way.pop(id(refusal.event))[1].job, refusal.reason)

    def refuse_job(self, job: Job, reason: str) -> None:
        """This job will never be accepted."""
        log.warning(
            "job_refused", repository_id=str(job.repository_id), name=job.repository_name, error=reason
        )
        self.result.refused.append(RefusedJob(job, reason))

    def close(self) -> None:
        """Jobs that were neither accepted nor refused were not sent."""
        self.result.not_sent = [
            job
            for job, built in zip(self._jobs, self._built, strict=True)
            if built is None or id(built[0]) in self._under_way
        ]

    def _build(self, job: Job, look_up: LookUp) -> OutgoingEvent:
        assert job.id is not None  # noqa: S101 - `__init__` has given it one
        event = job_event(job, look_up, job.id, self._form)
        with suppress(TypeError, ValueError):
            size_bytes(event)  # cache it now, while other look-ups are under way
        self._under_way[id(event)] = event, QueuedJob(job, job.id, priority_of(look_up), look_up)
        return event


@asynccontextmanager
async def open_job_queue(settings: Settings, mode: QueueMode | None = None) -> AsyncIterator[Queueing]:
    """A queue for the project and the Inngest of the settings; nothing is sent until the first call.

    `mode` defaults to that of the settings. Raises `ConfigurationError`, naming the setting, if jobs are to
    be sent directly and there is no event key.
    """
    api_key = ApiKey(settings.supabase_key.get_secret_value(), gateway_key=settings.plain_gateway_key)
    async with (
        open_store(settings.supabase_url, api_key) as store,
        open_queue(settings, store, mode or settings.queue_mode) as queue,
    ):
        yield queue


@asynccontextmanager
async def open_queue(settings: Settings, store: Store, mode: QueueMode) -> AsyncIterator[Queueing]:
    """The same as `open_job_queue`, on a store that is already open."""
    if mode == "ordered":
        yield OrderedQueue(store)
        return
    async with open_event_sender(settings) as sender:
        yield DirectQueue(store, sender, form=settings.event_priority)
