"""The parts that face Inngest, composed: what announces changes, what releases ordered jobs, what answers an
event, and what keeps the record of changes short whether or not anybody announces them.

What needs the Inngest SDK is imported only where the settings want it: the SDK costs time at the start, and
memory ever after.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from anyio.abc import TaskGroup

from priorityd.core.jobs.released import ReleaseLimits
from priorityd.daemon.apply.recorder import Recorder
from priorityd.daemon.database.store import Store
from priorityd.daemon.inngest.sync_function import SyncFunction, Walker
from priorityd.daemon.jobs.ordered_jobs import OrderedJobs
from priorityd.daemon.jobs.releaser import Releaser
from priorityd.daemon.liveness import Progress
from priorityd.daemon.outbox.dispatcher import Dispatcher
from priorityd.daemon.outbox.outbox import Outbox
from priorityd.daemon.outbox.trimmer import Trimmer
from priorityd.daemon.settings import Settings
from priorityd.daemon.status.metrics import Metrics

if TYPE_CHECKING:
    from priorityd.daemon.inngest.function_host import FunctionHost
    from priorityd.daemon.inngest.sender import EventSender


@dataclass(frozen=True, slots=True)
class Senders:
    """What sends announcements, and what sends released jobs; None where the settings want or allow none."""

    announcer: EventSender | None
    job_sender: EventSender | None


@asynccontextmanager
async def open_senders(settings: Settings, progress: Progress) -> AsyncIterator[Senders]:
    """What the settings want and allow."""
    if not settings.inngest_sends:
        yield Senders(None, None)
        return
    from priorityd.daemon.inngest.sender import open_event_sender

    async with AsyncExitStack() as opened:
        announcer = job_sender = None
        if settings.dispatch_changes:
            opening = open_event_sender(settings, on_attempt=lambda: progress.beat("dispatcher"))
            announcer = await opened.enter_async_context(opening)
        if settings.release_jobs:
            # What can't be sent goes back into the order instead of being tried again at once.
            opening = open_event_sender(
                settings, max_attempts=1, on_attempt=lambda: progress.beat("releaser")
            )
            job_sender = await opened.enter_async_context(opening)
        yield Senders(announcer, job_sender)


class InngestSide:
    """See the module's text. `daemon_id` is whose the claims and the connection are."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        senders: Senders,
        daemon_id: UUID,
        *,
        is_leader: Callable[[], bool],
        metrics: Metrics,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._store = store
        self._daemon_id = daemon_id
        self._progress = progress
        outbox = Outbox(store, daemon_id)
        self.trimmer = Trimmer(outbox, settings.change_retention_days, is_leader=is_leader, progress=progress)
        self.function_host: FunctionHost | None = None
        self.dispatcher: Dispatcher | None = None
        if senders.announcer is not None:
            self.dispatcher = Dispatcher(
                outbox,
                senders.announcer,
                claim_seconds=settings.dispatch_claim_seconds,
                form=settings.event_priority,
                sync_new=settings.sync_new_workspace_repositories,
                metrics=metrics.outbox,
                progress=progress,
            )

        self.releaser: Releaser | None = None
        if senders.job_sender is not None:
            self.releaser = Releaser(
                OrderedJobs(store, daemon_id),
                senders.job_sender,
                limits=ReleaseLimits(
                    settings.jobs_in_flight, settings.job_deadline_seconds, settings.job_lease_seconds
                ),
                form=settings.event_priority,
                is_leader=is_leader,
                metrics=metrics.releases,
                progress=progress,
            )

    def answer_with(self, walker: Walker, recorder: Recorder) -> None:
        """Offer Inngest the function, where the settings want and allow it."""
        if self._settings.inngest_hosts and self._settings.host_sync_function:
            from priorityd.daemon.inngest.function_host import FunctionHost

            function = SyncFunction(self._store, walker, recorder=recorder)
            self.function_host = FunctionHost(
                self._settings, function, str(self._daemon_id), progress=self._progress
            )

    def wake(self) -> None:
        """Changes were recorded."""
        if self.dispatcher is not None:
            self.dispatcher.wake()

    def start(self, parts: TaskGroup) -> None:
        """Run the parts that there are."""
        for part in (self.trimmer, self.dispatcher, self.releaser, self.function_host):
            if part is not None:
                parts.start_soon(part.run)

    def stop(self) -> None:
        """Take no more from Inngest and release no more jobs; announcing goes on until `drain`."""
        self.trimmer.stop()
        for part in (self.releaser, self.function_host):
            if part is not None:
                part.stop()

    def drain(self) -> None:
        """Nothing changes any more: announce what is on record, and end."""
        if self.dispatcher is not None:
            self.dispatcher.stop()
