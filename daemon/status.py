"""What `/status` shows: the daemon's state in plain data, without secrets."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import to_jsonable_python

from core import __version__
from core.work_queue import WorkQueue
from daemon.clock import monotonic, utc_now
from daemon.dispatcher import Dispatcher
from daemon.function_host import FunctionHost
from daemon.listener import Listener
from daemon.recorder import Recorder
from daemon.releaser import Releaser
from daemon.resyncer import Resyncer
from daemon.rows import Snapshot
from daemon.sweeper import Sweeper

MAX_PARKED_SHOWN = 20


def describe(
    *,
    started_at: datetime,
    not_ready: list[str],
    leader: bool,
    listener: Listener,
    queue: WorkQueue,
    sweeper: Sweeper,
    resyncer: Resyncer,
    recorder: Recorder,
    snapshot: Snapshot | None,
    dispatcher: Dispatcher | None,
    function_host: FunctionHost | None,
    releaser: Releaser | None,
) -> dict[str, Any]:
    """The data of `/status`; times are UTC, durations seconds."""
    now = monotonic()
    parked = queue.parked
    state = listener.state
    since = utc_now() - timedelta(seconds=now - state.since)
    status = {
        "version": __version__,
        "started_at": started_at,
        "ready": not not_ready,
        "not_ready_because": not_ready,
        "leader": leader,
        "listener": {
            "state": state.name,
            "since": since,
            "failures": state.failures,
            "last_failure": asdict(state.last_failure) if state.last_failure else None,
        },
        "queue": {
            "pending": queue.pending,
            "oldest_pending_seconds": round(queue.oldest_pending_seconds(now), 3),
            "parked": len(parked),
            "parked_repositories": {str(key): parked[key] for key in list(parked)[:MAX_PARKED_SHOWN]},
        },
        "sweep": {"last_done_at": sweeper.last_done_at, "succeeding": sweeper.succeeding},
        "resync": {
            "last_done_at": resyncer.last_done_at,
            "last_result": asdict(resyncer.last_result) if resyncer.last_result else None,
            "next_at": resyncer.next_at,
        },
        "last_change": {
            "at": recorder.last_change_at,
            "latency_seconds": recorder.last_latency_seconds,
        },
        "outbox": _outbox(dispatcher),
        "sync_function": _sync_function(function_host),
        "ordered_jobs": _ordered_jobs(releaser),
        "snapshot": asdict(snapshot) if snapshot else None,
    }
    result: dict[str, Any] = to_jsonable_python(status)
    return result


def _outbox(dispatcher: Dispatcher | None) -> dict[str, Any]:
    if dispatcher is None:
        return {"dispatching": False}
    depth = dispatcher.depth
    return {
        "dispatching": True,
        "pending": depth.pending if depth else None,
        "oldest_seconds": round(depth.oldest_seconds, 3) if depth else None,
        "abandoned": depth.abandoned if depth else None,
        "last_sent_at": dispatcher.last_sent_at,
        "last_error": dispatcher.last_error,
    }


def _ordered_jobs(releaser: Releaser | None) -> dict[str, Any]:
    if releaser is None:
        return {"releasing": False}
    release = releaser.release
    return {
        "releasing": True,
        "waiting": release.waiting if release else None,
        "in_flight": dict(release.in_flight) if release else None,
        "last_sent_at": releaser.last_sent_at,
        "held_back_because": releaser.held_back_because,
    }


def _sync_function(host: FunctionHost | None) -> dict[str, Any]:
    if host is None:
        return {"hosted": False}
    return {
        "hosted": True,
        "state": host.state,
        "last_run_at": host.last_run_at,
        "last_error": host.last_error,
    }
