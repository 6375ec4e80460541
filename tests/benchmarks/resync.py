"""A full resync of a large database beside one hand-written statement, and what users notice of it.

The resync goes the daemon's way: page by page through the library and the REST stand-in, each page a
transaction. Not `priorityd sync`: that begins with a second of importing, which a daemon pays once and
none of its resyncs has to.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from priorityd.core.database.answers import SyncAnswer, SyncResult
from priorityd.core.library.workspace_priority_sync import WorkspacePrioritySync
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.sandbox.postgres import EmbeddedPostgres, embedded_postgres
from priorityd.daemon.sandbox.server import serve_sandbox
from tests.benchmarks.database import application_of
from tests.benchmarks.figures import Json, at_least, at_most, ratios, spread, timed
from tests.benchmarks.large import BY_HAND, COUNT_BY_HAND, Sizes, fill, make_wrong, tidy
from tests.support.application import Application

WRONG_SHARE = 0.1
ROUNDS = 5
ALONE_SECONDS = 4.0
"""For how long users insert before and after a resync, without it."""

PAIRS = 700_000
"""More than users can insert meanwhile."""

_PAIRS = """
create table user_inserts (n integer primary key, workspace_id uuid, repository_id uuid);
insert into user_inserts
select row_number() over (), (select id from workspaces where name = 'of the users'), t.repository_id
from tracked_repositories t where not t.is_workspace_repo limit {pairs}
"""
_INSERT = """
\\set n :n + 1
insert into workspace_repositories (workspace_id, repository_id)
select workspace_id, repository_id from user_inserts where n = :n;
"""
_FORGET = """
delete from workspace_repositories
where workspace_id = (select id from workspaces where name = 'of the users')
"""


async def resync(sizes: Sizes | None = None, rounds: int = ROUNDS) -> Json:
    """See the module's text."""
    sizes = sizes or Sizes()
    with embedded_postgres() as postgres, application_of(postgres) as app:
        fill(app, sizes)
        async with (
            serve_sandbox(postgres.url()) as server,
            open_store(server.url, server.service_role_key) as store,
        ):
            wrong = await _compare(app, store, rounds, round(sizes.tracked * WRONG_SHARE))
            clean = await _compare(app, store, rounds, 0)
            users = await _with_users(postgres, app, store, rounds, round(sizes.tracked * WRONG_SHARE))
    longest = max(wrong["longest_page_seconds"], clean["longest_page_seconds"], users["longest_page_seconds"])
    return {
        "way": "pages through the library and the REST stand-in",
        **sizes.as_json(),
        "wrong_rows": round(sizes.tracked * WRONG_SHARE),
        "wrong": wrong,
        "clean": clean,
        "users": users,
        "bars": {
            "wrong_ratio": at_most(wrong["ratio"]["median"], 2.0),
            "clean_ratio": at_most(clean["ratio"]["median"], 1.5),
            "longest_transaction_seconds": at_most(longest, 1.0),
            "user_throughput_kept": at_least(users["throughput_kept"]["median"], 0.9),
            "user_longest_wait_ms": at_most(users["longest_wait_ms"]["most"], 50),
        },
    }


@dataclass
class _Pages:
    """The pages of one resync; a call holds one transaction, so it is no shorter than that."""

    store: Store
    seconds: list[float] = field(default_factory=list)

    async def resync_page(self, *args: Any, **options: Any) -> SyncAnswer:
        began = time.perf_counter()
        answer = await self.store.resync_page(*args, **options)
        self.seconds.append(time.perf_counter() - began)
        return answer

    async def walk(self) -> tuple[float, SyncResult]:
        service = WorkspacePrioritySync(self, time.monotonic)  # type: ignore[arg-type]
        began = time.perf_counter()
        result = await service.sync_all_priorities("resync")
        assert result.errors == []
        return time.perf_counter() - began, result


async def _compare(app: Application, store: Store, rounds: int, wrong: int) -> Json:
    by_hand, ours, longest, pages = [], [], 0.0, 0
    for _ in range(rounds):
        make_wrong(app, wrong)
        by_hand.append(timed(lambda: app.connection.execute(BY_HAND if wrong else COUNT_BY_HAND)))
        make_wrong(app, wrong)
        walk = _Pages(store)
        seconds, result = await walk.walk()
        assert result.priority_changes == wrong
        ours.append(seconds)
        longest, pages = max(longest, *walk.seconds), len(walk.seconds)
    assert app.wrong_rows() == 0
    return {
        "ratio": spread(ratios(ours, by_hand)),
        "by_hand_seconds": spread(by_hand),
        "resync_seconds": spread(ours),
        "pages": pages,
        "longest_page_seconds": round(longest, 3),
    }


# Users.


async def _with_users(
    postgres: EmbeddedPostgres, app: Application, store: Store, rounds: int, wrong: int
) -> Json:
    app.connection.execute("insert into workspaces (name) values ('of the users')")
    app.connection.execute(_PAIRS.format(pairs=PAIRS).encode())
    kept, waits, waits_alone, rates, longest, took = [], [], [], [], 0.0, 10.0
    for _ in range(rounds):
        make_wrong(app, wrong)
        walk = _Pages(store)
        users = _Users(postgres, 2 * ALONE_SECONDS + 1.5 * took)
        await anyio.sleep(ALONE_SECONDS)
        began = time.time()
        took, _ = await walk.walk()
        during, alone = await users.inserts(began, time.time())
        kept.append(during.per_second / alone.per_second)
        rates.append(alone.per_second)
        waits.append(during.longest_ms)
        waits_alone.append(alone.longest_ms)
        longest = max(longest, *walk.seconds)
        app.connection.execute(_FORGET)
        app.connection.execute(BY_HAND)
        tidy(app)
    return {
        "throughput_kept": spread(kept),
        "inserts_per_second_alone": spread(rates, 0),
        "longest_wait_ms": spread(waits, 1),
        "longest_wait_alone_ms": spread(waits_alone, 1),
        "longest_page_seconds": round(longest, 3),
    }


@dataclass(frozen=True)
class _Inserts:
    per_second: float
    longest_ms: float


class _Users:
    """One user who adds a repository to a workspace, and the next, without a pause, for so many seconds."""

    def __init__(self, postgres: EmbeddedPostgres, seconds: float) -> None:
        self._directory = tempfile.TemporaryDirectory()
        script = Path(self._directory.name) / "insert.sql"
        script.write_text(_INSERT)
        command = [str(postgres.bin_dir / "pgbench"), "-n", "-M", "prepared", "-D", "n=0", "-f", str(script)]
        command += ["-T", str(round(seconds)), "-l", "--log-prefix", f"{self._directory.name}/log"]
        self._process = subprocess.Popen(
            [*command, postgres.url()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
        )

    async def inserts(self, began: float, ended: float) -> tuple[_Inserts, _Inserts]:
        """What they did between these times, and before and after, but for the first second."""
        _, errors = await anyio.to_thread.run_sync(self._process.communicate)
        assert self._process.returncode == 0, errors
        done = await anyio.to_thread.run_sync(self._read)
        assert len(done) < PAIRS
        first, last = done[0][0] + 1, done[-1][0]
        ended = min(ended, last)
        during = [wait for at, wait in done if began <= at <= ended]
        alone = [wait for at, wait in done if first <= at < began or ended < at <= last]
        seconds_alone = (began - first) + (last - ended)
        return (
            _Inserts(len(during) / (ended - began), max(during)),
            _Inserts(len(alone) / seconds_alone, max(alone)),
        )

    def _read(self) -> list[tuple[float, float]]:
        """Of each insert: when it was done, and how many milliseconds it took."""
        with self._directory as directory:
            lines = [line.split() for log in Path(directory).glob("log*") for line in log.open()]
        return [(int(line[4]) + int(line[5]) / 1e6, int(line[2]) / 1000) for line in lines]
