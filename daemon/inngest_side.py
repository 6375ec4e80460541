"""The parts that talk to Inngest, where the settings enable them: announcing changes, releasing ordered jobs,
and answering an event.

Whatever needs the Inngest SDK is imported only if enabled: the SDK costs start-up time and memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from priorityd.core.jobs.released import ReleaseLimits
from priorityd.daemon.database.store import Store
from priorityd.daemon.inngest.sync_function import SyncFunction
from priorityd.daemon.jobs.metrics import ReleaseMetrics
from priorityd.daemon.jobs.ordered_jobs import OrderedJobs
from priorityd.daemon.jobs.ordered_queue import OrderedQueue
from priorityd.daemon.jobs.releaser import Releaser
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.outbox.dispatcher import Dispatcher
from priorityd.daemon.outbox.metrics import OutboxMetrics
from priorityd.daemon.outbox.outbox import Outbox
from priorityd.daemon.settings import Settings

if TYPE_CHECKING:
    from priorityd.daemon.inngest.api import InngestApi
    from priorityd.daemon.inngest.function_host import FunctionHost
    from priorityd.daemon.inngest.sender import EventSender


@dataclass(frozen=True, slots=True)
class Senders:
    """The senders of announcements and released jobs, and the API to look up lost ones; None if disabled."""

    announcer: EventSender | None
    job_sender: EventSender | None
    job_runs: InngestApi | None = None


@asynccontextmanager
async def open_senders(settings: Settings, liveness: Liveness) -> AsyncIterator[Senders]:
    """What the settings enable."""
    if not settings.inngest_sends:
        yield Senders(None, None)
        return
    from priorityd.daemon.inngest.api import open_inngest_api
    from priorityd.daemon.inngest.sender import open_event_sender

    async with AsyncExitStack() as opened:
        announcer = job_sender = job_runs = None
        if settings.dispatch_changes:
            opening = open_event_sender(settings, on_attempt=lambda: liveness.tick(Dispatcher.name))
            announcer = await opened.enter_async_context(opening)
        if settings.release_jobs:
            # What can't be sent goes back into the order instead of being retried at once.
            opening = open_event_sender(
                settings, max_attempts=1, on_attempt=lambda: liveness.tick(Releaser.name)
            )
            job_sender = await opened.enter_async_context(opening)
            if settings.inngest_signing_key or settings.inngest_is_dev:
                job_runs = await opened.enter_async_context(open_inngest_api(settings))
        yield Senders(announcer, job_sender, job_runs)


def make_dispatcher(
    settings: Settings,
    store: Store,
    outbox: Outbox,
    sender: EventSender | None,
    metrics: OutboxMetrics,
    liveness: Liveness,
) -> Dispatcher | None:
    """The dispatcher of recorded changes, if enabled."""
    if sender is None:
        return None
    return Dispatcher(
        outbox,
        sender,
        claim_seconds=settings.dispatch_claim_seconds,
        form=settings.event_priority,
        sync_new=settings.sync_new_workspace_repositories,
        queue=OrderedQueue(store) if settings.queue_mode == "ordered" else None,
        metrics=metrics,
        liveness=liveness,
    )


def make_releaser(
    settings: Settings,
    jobs: OrderedJobs,
    senders: Senders,
    *,
    is_leader: Callable[[], bool],
    metrics: ReleaseMetrics,
    liveness: Liveness,
) -> Releaser | None:
    """The releaser of ordered jobs, if enabled."""
    if senders.job_sender is None:
        return None
    return Releaser(
        jobs,
        senders.job_sender,
        senders.job_runs,
        limits=ReleaseLimits(
            settings.jobs_in_flight,
            settings.job_deadline_seconds,
            settings.job_lease_seconds,
            settings.job_most_leases,
        ),
        form=settings.event_priority,
        is_leader=is_leader,
        metrics=metrics,
        liveness=liveness,
    )


def make_function_host(
    settings: Settings, function: SyncFunction, daemon_id: str, liveness: Liveness
) -> FunctionHost | None:
    """The host of the function for Inngest, if enabled."""
    if not (settings.inngest_hosts and settings.host_sync_function):
        return None
    from priorityd.daemon.inngest.function_host import FunctionHost

    return FunctionHost(settings, function, daemon_id, liveness=liveness)
