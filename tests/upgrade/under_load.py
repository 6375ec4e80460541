"""The whole set of migrations again and again, while daemons work and jobs are released.

`python -m tests.upgrade.under_load --seconds 120 --daemons 3` prints one line of JSON: how often the set
was applied, what failed, and the longest that any statement of the application or of a release took. Its exit
code is 1 if a call failed, a row is wrong at the end, or anybody waited for more than a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg

from priorityd.core.database.migrations import SqlFile, gather
from priorityd.daemon.migration_files import migration_files
from priorityd.daemon.sandbox.migrate import apply_migrations
from priorityd.daemon.sandbox.postgres import embedded_postgres
from tests.support.application import Application
from tests.support.daemon_process import Daemon, eventually, start_daemon
from tests.support.database import schema_sql
from tests.support.servers import start_servers

LONGEST_SECONDS: Final = 1.0
_REPOSITORIES: Final = 500
_PAUSE_SECONDS: Final = 0.02
_CALL_FAILED: Final = (
    "sweep_failed",
    "resync_failed",
    "apply_failed",
    "lease_renewal_failed",
    "job_poll_failed",
)


@dataclass
class _Client:
    """Does one thing again and again in a thread, and remembers the longest and what failed."""

    name: str
    step: Callable[[], None]
    longest_seconds: float = 0.0
    steps: int = 0
    errors: list[str] = field(default_factory=list)

    def run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            began = time.perf_counter()
            try:
                self.step()
            except psycopg.Error as error:
                self.errors.append(f"{self.name}: {error}")
            self.longest_seconds = max(self.longest_seconds, time.perf_counter() - began)
            self.steps += 1
            ended.wait(_PAUSE_SECONDS)


def _clients(url: str, running: AsyncExitStack) -> list[_Client]:
    def connect() -> psycopg.Connection[Any]:
        return running.enter_context(closing(psycopg.connect(url, autocommit=True)))

    app = Application(connect())
    repositories, workspace = app.repositories(_REPOSITORIES), app.workspace()
    members: set[UUID] = set()
    turn = iter(range(10**9))

    def join_or_leave() -> None:
        repository = repositories[next(turn) % _REPOSITORIES]
        (app.remove if repository in members else app.add)(workspace, repository)
        members.symmetric_difference_update({repository})

    reader, jobs, releases = connect(), connect(), connect()
    daemon = uuid4()

    def queue() -> None:
        chosen = [{"repository_id": str(repository)} for repository in repositories[:5]]
        jobs.execute("select queue_repository_jobs(%s, 'reviews')", (json.dumps(chosen),))

    def release() -> None:
        row = releases.execute("select release_ordered_jobs(%s, 50) -> 'jobs'", (daemon,)).fetchone()
        ids = [job["job_id"] for job in (row or ([],))[0]]
        releases.execute("select mark_jobs_sent(%s::uuid[])", (ids,))
        releases.execute(
            "update background_jobs set status = 'completed', completed_at = now()"
            " where id = any (%s::uuid[])",
            (ids,),
        )

    return [
        _Client("a membership", join_or_leave),
        _Client("a read", lambda: reader.execute("select count(*) from tracked_repositories").close()),
        _Client("queueing", queue),
        _Client("a release", release),
    ]


def _apply(url: str, ended: threading.Event, errors: list[str]) -> int:
    """Alternately the files one by one and the two that a project gets."""
    texts = gather([SqlFile(file.name, file.read_text()) for file in migration_files()])
    applied = 0
    with psycopg.connect(url, autocommit=True) as connection:
        while not ended.is_set() or applied < 2:
            try:
                if applied % 2:
                    for text in texts.values():
                        with connection.transaction():
                            connection.execute(text.encode())
                else:
                    apply_migrations(connection)
            except psycopg.Error as error:
                errors.append(f"applying: {error}")
            applied += 1
    return applied


async def under_load(seconds: float, daemons: int) -> dict[str, Any]:
    """See the module's docstring."""
    with embedded_postgres() as postgres:
        url = postgres.url()
        with psycopg.connect(url, autocommit=True) as connection:
            for name in ("roles", "application"):
                connection.execute(schema_sql(name))
            apply_migrations(connection)
        async with start_servers(url) as server, AsyncExitStack() as running:
            settings: dict[str, Any] = {
                "SUPABASE_URL": server.url,
                "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
            }
            fleet = [
                await running.enter_async_context(
                    start_daemon(**settings, PRIORITYD_SWEEP_INTERVAL_SECONDS=1)
                )
                for _ in range(daemons)
            ]
            clients = _clients(url, running)
            errors: list[str] = []
            ended = threading.Event()
            threads = [threading.Thread(target=client.run, args=(ended,)) for client in clients]
            for thread in threads:
                thread.start()
            applying = asyncio.create_task(asyncio.to_thread(_apply, url, ended, errors))
            await asyncio.sleep(seconds)
            ended.set()
            applied = await applying
            for thread in threads:
                thread.join()
            with psycopg.connect(url, autocommit=True) as connection:
                app = Application(connection)
                await eventually(lambda: app.wrong_rows() == 0)
                wrong = app.wrong_rows()
            failed = [line for daemon in fleet for line in daemon.logs if line["event"] in _CALL_FAILED]
            failed_calls = sum([await _failed_calls(daemon) for daemon in fleet])
    for client in clients:
        errors += client.errors
    return {
        "seconds": seconds,
        "daemons": daemons,
        "times_applied": applied,
        "steps": {client.name: client.steps for client in clients},
        "longest_seconds": {client.name: round(client.longest_seconds, 3) for client in clients},
        "failed_calls": failed_calls,
        "wrong_rows": wrong,
        "errors": errors[:5] + [str(line) for line in failed[:5]],
    }


async def _failed_calls(daemon: Daemon) -> int:
    return int(await daemon.metric("call_errors_total"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--daemons", type=int, default=3)
    options = parser.parse_args()
    found = asyncio.run(under_load(options.seconds, options.daemons))
    print(json.dumps(found))
    waited = max(found["longest_seconds"].values()) > LONGEST_SECONDS
    return 1 if waited or found["failed_calls"] or found["wrong_rows"] or found["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
