"""A full resync of a large database, compared with a hand-written one, and what users notice of it.

If rows are wrong, the floor is one statement per page, which updates them and records what it changed; if
none is, it is one count of all rows. The resync works as in the daemon: page by page through the library and
the REST stand-in, each page a transaction. `priorityd sync` is not used, since it begins with imports, which
a daemon pays for only once.

Users are measured three times a round, each time from the same state of the database: during the resync,
during the floor, and alone for the same time. The ratio is that of the first two: alone, users are slower,
because the processors of an idle machine take longer to wake up than those of a busy one.
"""

from __future__ import annotations

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
from tests.benchmarks.database import application_of
from tests.benchmarks.figures import Json, at_least, at_most, ratios, spread, timed
from tests.benchmarks.large import BY_HAND, COUNT_BY_HAND, Sizes, by_hand_in_pages, fill, make_wrong, tidy
from tests.support.application import Application
from tests.support.servers import start_servers

WRONG_SHARE = 0.1
ROUNDS = 3
WARM_SECONDS = 2.0
"""How long users have been active when the measurement begins."""
_LONGEST_SECONDS = 600
PAIRS = 700_000
"""More than users can insert in the meantime."""

_PAIRS = """
insert into workspaces (name) select 'of the users' from generate_series(1, 1 + {pairs} / {outside});
create table user_inserts (n integer primary key, workspace_id uuid, repository_id uuid);
insert into user_inserts
select row_number() over (), w.id, t.repository_id
from tracked_repositories t, workspaces w
where not t.is_workspace_repo and w.name = 'of the users' limit {pairs}
"""
_INSERT = """
\\set n :n + 1
insert into workspace_repositories (workspace_id, repository_id)
select workspace_id, repository_id from user_inserts where n = :n;
"""
_FORGET = """
delete from workspace_repositories
where workspace_id in (select id from workspaces where name = 'of the users')
"""


async def resync(sizes: Sizes | None = None, rounds: int = ROUNDS) -> Json:
    """See the module's docstring."""
    sizes = sizes or Sizes()
    with embedded_postgres() as postgres, application_of(postgres) as app:
        fill(app, sizes)
        async with (
            start_servers(postgres.url()) as server,
            open_store(server.url, server.service_role_key) as store,
        ):
            wrong_rows = round(sizes.tracked * WRONG_SHARE)
            wrong = await _compare(app, store, rounds, wrong_rows)
            clean = await _compare(app, store, rounds, 0)
            users = await _with_users(postgres, app, store, rounds, sizes)
    waits = users["longest_wait_ms"]
    longest = max(wrong["longest_page_seconds"], clean["longest_page_seconds"], users["longest_page_seconds"])
    return {
        "way": "pages through the library and the REST stand-in",
        **sizes.as_json(),
        "wrong_rows": wrong_rows,
        "wrong": wrong,
        "clean": clean,
        "users": users,
        "bars": {
            "wrong_ratio": at_most(wrong["ratio"]["median"], 1.5),
            "clean_ratio": at_most(clean["ratio"]["median"], 1.5),
            "longest_transaction_seconds": at_most(longest, 1.0),
            "user_throughput_kept": at_least(users["throughput_kept"]["median"], 0.9),
            "user_longest_wait_ratio": at_most(
                waits["beside_the_resync"]["median"] / waits["beside_the_floor"]["median"], 1.2
            ),
        },
    }


@dataclass
class _Pages:
    """The pages of one resync; each call contains a whole transaction, so it takes at least as long."""

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
        by_hand.append(
            by_hand_in_pages(app) if wrong else timed(lambda: app.connection.execute(COUNT_BY_HAND))
        )
        assert app.wrong_rows() == 0
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
    postgres: EmbeddedPostgres, app: Application, store: Store, rounds: int, sizes: Sizes
) -> Json:
    outside = sizes.tracked - sizes.in_workspaces
    app.connection.execute(_PAIRS.format(pairs=PAIRS, outside=outside).encode())
    walk = _Pages(store)

    async def by_hand() -> None:
        await anyio.to_thread.run_sync(by_hand_in_pages, app)

    async def ours() -> None:
        await walk.walk()

    measured: dict[str, list[_Inserts]] = {"beside_the_resync": [], "beside_the_floor": [], "alone": []}
    for _ in range(rounds):
        took = 0.0
        for name, work in (
            ("beside_the_resync", ours),
            ("beside_the_floor", by_hand),
            ("alone", lambda: anyio.sleep(took)),  # noqa: B023 - called before it changes
        ):
            make_wrong(app, round(sizes.tracked * WRONG_SHARE))
            app.connection.execute("checkpoint")
            with _Users(postgres) as users:
                await anyio.sleep(WARM_SECONDS)
                began = time.time()
                await work()
                ended = time.time()
            took = max(took, ended - began)
            measured[name].append(users.inserts(began, ended))
            app.connection.execute(_FORGET)
            app.connection.execute(BY_HAND)
            tidy(app)
    rates = {name: [each.per_second for each in inserts] for name, inserts in measured.items()}
    waits = {name: [each.longest_ms for each in inserts] for name, inserts in measured.items()}
    return {
        "throughput_kept": spread(ratios(rates["beside_the_resync"], rates["beside_the_floor"])),
        "inserts_per_second": {name: spread(each, 0) for name, each in rates.items()},
        "longest_wait_ms": {name: spread(each, 1) for name, each in waits.items()},
        "longest_page_seconds": round(max(walk.seconds), 3),
    }


@dataclass(frozen=True)
class _Inserts:
    per_second: float
    longest_ms: float


class _Users:
    """One user who adds one repository after the other to a workspace, until the block ends."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._directory = tempfile.TemporaryDirectory()
        script = Path(self._directory.name) / "insert.sql"
        script.write_text(_INSERT)
        command = [str(postgres.bin_dir / "pgbench"), "-n", "-M", "prepared", "-D", "n=0", "-f", str(script)]
        command += ["-T", str(_LONGEST_SECONDS), "-l", "--log-prefix", f"{self._directory.name}/log"]
        self._process = subprocess.Popen([*command, postgres.url()], stdout=subprocess.DEVNULL)
        self._done: list[tuple[float, float]] = []

    def __enter__(self) -> _Users:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.poll() is None, "the users ended before the work did"
        self._process.terminate()
        self._process.wait()
        self._done = self._read()

    def inserts(self, began: float, ended: float) -> _Inserts:
        """What the users did between these times."""
        assert 0 < len(self._done) < PAIRS
        # pgbench has not written its last lines, which cover some milliseconds.
        ended = min(ended, self._done[-1][0])
        waits = [wait for at, wait in self._done if began <= at <= ended]
        return _Inserts(len(waits) / (ended - began), max(waits))

    def _read(self) -> list[tuple[float, float]]:
        """For each insert: when it was done, and how many milliseconds it took."""
        with self._directory as directory:
            (log,) = Path(directory).glob("log*")
            lines = [line.split() for line in log.read_text().splitlines()[:-1]]
        return [(int(line[4]) + int(line[5]) / 1e6, int(line[2]) / 1000) for line in lines]
