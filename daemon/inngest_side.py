"""The parts that face Inngest, composed: what announces changes, what answers an event, and what keeps the
record of changes short whether or not anybody announces them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from anyio.abc import TaskGroup

from daemon.dispatcher import Dispatcher
from daemon.event_sender import EventSender, open_event_sender
from daemon.function_host import FunctionHost
from daemon.metrics import Metrics
from daemon.outbox import Outbox
from daemon.progress import Progress
from daemon.recorder import Recorder
from daemon.settings import Settings
from daemon.store import Store
from daemon.sync_function import SyncFunction, Walker
from daemon.trimmer import Trimmer


@asynccontextmanager
async def open_announcer(settings: Settings, progress: Progress) -> AsyncIterator[EventSender | None]:
    """What sends announcements; None where the settings want none or allow none."""
    if not (settings.inngest_sends and settings.dispatch_changes):
        yield None
        return
    async with open_event_sender(settings, on_attempt=lambda: progress.beat("dispatcher")) as sender:
        yield sender


class InngestSide:
    """See the module's text. `daemon_id` is whose the claims and the connection are."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        sender: EventSender | None,
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
        if sender is not None:
            self.dispatcher = Dispatcher(
                outbox,
                sender,
                claim_seconds=settings.dispatch_claim_seconds,
                form=settings.event_priority,
                sync_new=settings.sync_new_workspace_repositories,
                metrics=metrics,
                progress=progress,
            )

    def answer_with(self, walker: Walker, recorder: Recorder) -> None:
        """Offer Inngest the function, where the settings want and allow it."""
        if self._settings.inngest_hosts and self._settings.host_sync_function:
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
        for part in (self.trimmer, self.dispatcher, self.function_host):
            if part is not None:
                parts.start_soon(part.run)

    def stop(self) -> None:
        """Take no more from Inngest; announcing goes on until `drain`."""
        self.trimmer.stop()
        if self.function_host is not None:
            self.function_host.stop()

    def drain(self) -> None:
        """Nothing changes any more: announce what is on record, and end."""
        if self.dispatcher is not None:
            self.dispatcher.drain()
