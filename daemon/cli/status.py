"""`priorityd status`: a summary of the priorities, from the database, and the daemon's `/status`.

Each part of `/status` has a line in `_PARTS`; parts that a daemon of another version lacks are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Final

import click
import httpx

from priorityd.core.errors import ExitCode
from priorityd.core.names import job_known_as, known_as, row_known_as
from priorityd.daemon.bounded_client import tls_context
from priorityd.daemon.cli.jobs import count_lines
from priorityd.daemon.cli.output import print_json
from priorityd.daemon.cli.own_daemon import stranger
from priorityd.daemon.database.rows import Snapshot
from priorityd.daemon.database.store import Store
from priorityd.daemon.jobs.ordered_jobs import count_jobs
from priorityd.daemon.settings import Settings

Facts = dict[str, Any]

_PAIRS: Final = 5
"""How many of the jobs that overtook others are shown."""


async def status_command(settings: Settings, store: Store, *, as_json: bool) -> ExitCode:
    """Show both."""
    snapshot = await store.snapshot()
    counted = await count_jobs(store)
    daemon, why_none = await _ask_daemon(settings)
    if as_json:
        print_json({"snapshot": asdict(snapshot), "ordered_jobs": asdict(counted), "daemon": daemon})
    else:
        for line in (*_snapshot_lines(snapshot), *count_lines(counted), *_daemon_lines(daemon, why_none)):
            click.echo(line)
    return ExitCode.DONE


async def _ask_daemon(settings: Settings) -> tuple[Facts | None, str]:
    """What the daemon says, or why there is none."""
    place = f"at {settings.http_host}:{settings.http_port}"
    try:
        async with httpx.AsyncClient(timeout=2, trust_env=False, verify=tls_context()) as client:
            response = await client.get(f"{settings.http_url}/status")
            if other := stranger(settings, response.headers.get("Server", "")):
                return None, f"{other} answers {place}"
            answer = response.raise_for_status().json()
            return (answer, "") if isinstance(answer, dict) else (None, f"no answer {place}")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None, f"no answer {place}"


def _snapshot_lines(snapshot: Snapshot) -> Iterator[str]:
    for row in snapshot.repositories:
        kind = "workspace" if row.is_workspace_repo else "tracked only"
        yield f"{row.count:>10}  {kind:<13} {row.priority or 'no priority'}"
    yield f"{snapshot.held:>10}  repositories in a workspace"
    yield f"{snapshot.inversions:>10}  of these not high"
    yield f"{snapshot.untracked:>10}  repositories in a workspace without a tracked row"
    yield f"{snapshot.outbox_pending:>10}  changes waiting to be announced to Inngest"
    yield f"{snapshot.outbox_abandoned:>10}  changes refused by Inngest"
    yield f"Migrations: set {snapshot.schema_version}"


def _daemon_lines(daemon: Facts | None, why_none: str) -> Iterator[str]:
    if daemon is None:
        yield f"Daemon: {why_none}"
        return
    yield f"Daemon: {_ready(daemon)}"
    if "headline" in daemon:
        yield f"Headline: {daemon['headline']}"
    if "known" in daemon:
        yield f"Known: {_known(daemon['known'])}"
    for problem in daemon.get("problems", ()):
        yield f"  {problem['severity']}: {problem['text']}"
    for label, part, describe in _PARTS:
        if part in daemon:
            yield f"{label}: {describe(daemon[part])}"
    for row in daemon.get("queue", {}).get("parked_repositories", ()):
        yield f"  {known_as(row['repository_id'], row['name'])}: {row['reason']}"
    for row in daemon.get("queue", {}).get("refused_rows", ()):
        yield f"  {row_known_as(row['tracked_repository_id'], row['name'])}: {row['reason']}"
    for pair in daemon.get("jobs", {}).get("inversion_sample", ())[:_PAIRS]:
        yield f"  {_pair(pair)}"


def _pair(pair: Facts) -> str:
    early = job_known_as(pair["job_id"], pair["repository_id"], pair["name"])
    waiting = job_known_as(pair["waiting_job_id"], pair["waiting_repository_id"], pair["waiting_name"])
    return (
        f"{early}, {pair['priority']}, started {_time(pair['started_at'])} "
        f"before {waiting}, {pair['waiting_priority']}"
    )


def _ready(daemon: Facts) -> str:
    ready = "ready" if daemon["ready"] else f"not ready ({'; '.join(daemon['not_ready_because'])})"
    return f"{ready}, version {daemon['version']}, since {_time(daemon['started_at'])}"


def _known(known: Facts) -> str:
    ages = {
        "database answered": known["database_seconds"],
        "heartbeat received": known["stream_seconds"],
        "repositories counted": known["repositories_seconds"],
    }
    return ", ".join(
        f"{what} {'not yet' if seconds is None else f'{seconds:.0f} s ago'}" for what, seconds in ages.items()
    )


def _listener(listener: Facts) -> str:
    text = f"{listener['state']} since {_time(listener['since'])}"
    failure = listener.get("last_failure")
    return f"{text}, last failure: {failure['reason']} ({failure['detail']})" if failure else text


def _queue(queue: Facts) -> str:
    oldest = f", the oldest for {queue['oldest_pending_seconds']:.1f} s" if queue["pending"] else ""
    rows = queue["refused_rows_in_all"]
    nameless = f", {rows} {'row' if rows == 1 else 'rows'} without a repository refused" if rows else ""
    refused = queue.get("all_refused_because")
    return f"{queue['pending']} pending{oldest}, {queue['parked']} parked{nameless}" + (
        f"; no row can be written ({refused})" if refused else ""
    )


def _sweep(sweep: Facts) -> str:
    return f"last done {_time(sweep['last_done_at'])}" + ("" if sweep["succeeding"] else ", failing")


def _resync(resync: Facts) -> str:
    return f"last done {_time(resync['last_done_at'])}, next {_time(resync['next_at'])}"


def _last_change(change: Facts) -> str:
    if change["at"] is None:
        return "none yet"
    latency = change["latency_seconds"]
    return _time(change["at"]) + (f", applied after {latency:.3f} s" if latency is not None else "")


def _changes(history: Facts) -> str:
    measured = [
        f"{priority}: median {latency['p50_seconds']:.3f} s, 95 % within {latency['p95_seconds']:.3f} s"
        for priority, latency in history["latency"].items()
        if latency["count"]
    ]
    return f"{history['changes']} in the last hour" + "".join(f"; {each}" for each in measured)


def _outbox(outbox: Facts) -> str:
    if not outbox["dispatching"]:
        return "disabled"
    if outbox["last_error"]:
        return f"can't announce changes ({outbox['last_error']})"
    return f"announcing changes, {outbox['pending'] or 0} waiting, last sent {_time(outbox['last_sent_at'])}"


def _sync_function(function: Facts) -> str:
    return f"{function['state']}, last run {_time(function['last_run_at'])}" if function["hosted"] else "off"


def _jobs(jobs: Facts) -> str:
    if jobs["off_because"]:
        return f"not read ({jobs['off_because']})"
    queued = ", ".join(f"{priority} {each['count']}" for priority, each in jobs["queued"].items())
    least = "" if jobs["queued_whole"] else "at least "
    held = jobs["held_back_by"]
    behind = f"; the count waits for {_holder(held)}" if held else ""
    return f"queued: {least}{queued}; {jobs['inversions']} overtook a more urgent one{behind}"


def _holder(held: Facts) -> str:
    what = f"the transaction of backend {held['pid']}" if held["pid"] else "a prepared transaction"
    return f"{what}, open for {held['seconds']:,.0f} s"


def _ordered_jobs(jobs: Facts) -> str:
    if not jobs["releasing"]:
        return "not released by this daemon"
    if jobs["held_back_because"]:
        return f"held back ({jobs['held_back_because']})"
    in_flight = ", ".join(f"{priority} {count}" for priority, count in jobs["in_flight"].items())
    waiting = "jobs waiting" if jobs["waiting"] else "no jobs waiting"
    lost = f"; {jobs['lost']} lost" if jobs["lost"] else ""
    return f"{waiting}; in flight: {in_flight}{lost}; last sent {_time(jobs['last_sent_at'])}"


def _leader(leader: Any) -> str:
    return "this daemon" if leader else "another daemon, or none"


def _time(text: str | None) -> str:
    return f"{text[:19].replace('T', ' ')} UTC" if text else "never"


_PARTS: Final[tuple[tuple[str, str, Callable[[Any], str]], ...]] = (
    ("Stream", "listener", _listener),
    ("Queue", "queue", _queue),
    ("Leader", "leader", _leader),
    ("Sweep", "sweep", _sweep),
    ("Full resync", "resync", _resync),
    ("Last change", "last_change", _last_change),
    ("Changes", "history", _changes),
    ("Outbox", "outbox", _outbox),
    ("Sync function", "sync_function", _sync_function),
    ("Jobs", "jobs", _jobs),
    ("Ordered jobs", "ordered_jobs", _ordered_jobs),
)
"""For each part of `/status`: its label, its key, and the function that describes it."""
