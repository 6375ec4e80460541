"""From a change's commit to the commit that makes its priority right, compared with what no daemon can beat.

Both are measured at the same rate, in turns of a few seconds: while one is measured, the other is stopped by
a signal, so that neither waits for the other's work. All times are from one clock. The database's own commit
times show when a change and its consequence became visible; a bare client records when the change arrived,
and how long a call that does nothing then takes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from statistics import median
from threading import Thread
from typing import Any, Final
from uuid import UUID, uuid4

import anyio
import anyio.to_thread

from tests.benchmarks.database import application
from tests.benchmarks.figures import at_most, percentile, spread
from tests.benchmarks.latency_floor import NO_OP
from tests.benchmarks.sandbox import sandbox_process
from tests.support.application import Application
from tests.support.daemon_process import environment, eventually, priorityd, start_daemon

CHANGES_PER_SECOND: Final = 20
TURNS: Final = 20
ADDS_PER_TURN: Final = 30
"""And the same number of removals: three seconds."""
_ADDS_AHEAD: Final = 10
UNSEEN: Final = 40
"""Removals of rows that were there before the daemon, one a second."""

_NO_OP = f"""
create function {NO_OP}() returns jsonb language sql set search_path = '' as 'select jsonb_build_object()';
revoke execute on function {NO_OP}() from public;
grant execute on function {NO_OP}() to service_role;
"""
_ADD = """
insert into workspace_repositories (id, workspace_id, repository_id) values (%s, %s, %s)
returning pg_current_xact_id()::text
"""
_REMOVE = "delete from workspace_repositories where id = %s returning pg_current_xact_id()::text"
_COMMITTED = "select extract(epoch from pg_xact_commit_timestamp(%s::xid))::double precision"
_APPLIED = """
select extract(epoch from pg_xact_commit_timestamp(xmin))::double precision
from repository_priority_changes where repository_id = %s and is_workspace_repo = %s
"""


@dataclass(frozen=True)
class Change:
    """One of the application's changes, and its transaction."""

    operation: str
    row_id: UUID
    repository_id: UUID
    transaction: str


@dataclass
class Bare:
    """The bare client's process and its output: operation and row, arrival, seconds of the call."""

    process: subprocess.Popen[str]
    subscribed: bool = False
    heard: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if said == "subscribed":
                self.subscribed = True
            else:
                operation, row_id, arrived_at, call_seconds = said
                self.heard[operation, row_id] = arrived_at, call_seconds


async def latency() -> dict[str, Any]:
    """Additions and removals in turns with the floor; then removals of rows unknown to the daemon."""
    with application(commit_times=True) as (url, app):
        app.connection.execute(_NO_OP)
        app.connection.execute("notify pgrst, 'reload schema'")
        # All of them now: tracking a row is a change, too, and another one soon after it would wait.
        repositories = iter(app.repositories(TURNS * 2 * ADDS_PER_TURN))
        old = _Changes(app, app.repositories(UNSEEN))
        old_rows = old.add_all()
        with sandbox_process(url) as settings:
            assert (await priorityd("sync", **settings))[0] == 0
            measure = _Measurement(app, repositories)
            for bare_is_first in (True, False):
                async with _both(settings, bare_is_first=bare_is_first) as (daemon_pid, bare):
                    await measure.run(daemon_pid, bare)
                    if not bare_is_first:
                        unseen = await measure.unseen(old, old_rows)
    return _report(measure, unseen)


@contextmanager
def _bare_client(settings: dict[str, Any]) -> Iterator[Bare]:
    command = [sys.executable, "-m", "tests.benchmarks.latency_floor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(**settings), text=True) as process:
        bare = Bare(process)
        reader = Thread(target=bare.read)
        reader.start()
        try:
            yield bare
        finally:
            process.kill()
            reader.join()


@asynccontextmanager
async def _both(settings: dict[str, Any], *, bare_is_first: bool) -> AsyncIterator[tuple[int, Bare]]:
    """The daemon and the bare client. They take turns in receiving a change first."""
    async with AsyncExitStack() as opened:
        if not bare_is_first:
            daemon = await opened.enter_async_context(start_daemon(**settings))
        bare = opened.enter_context(_bare_client(settings))
        await eventually(lambda: bare.subscribed, 30)
        if bare_is_first:
            daemon = await opened.enter_async_context(start_daemon(**settings))
        yield daemon.process.pid, bare


class _Changes:
    """Additions and removals at a rate, of repositories that are otherwise in no workspace."""

    def __init__(self, app: Application, repositories: Sequence[UUID]) -> None:
        self._app = app
        self._workspace = app.workspace()
        self._repositories = repositories

    def add_all(self) -> list[Change]:
        return [self._add(repository) for repository in self._repositories]

    def run(self) -> list[Change]:
        """Each repository is added, and removed again half a second to a second later."""
        changes: list[Change] = []
        adds: list[Change] = []
        removed = 0
        while removed < len(self._repositories):
            began = time.perf_counter()
            ahead = len(adds) - removed
            if len(adds) < len(self._repositories) and (ahead < _ADDS_AHEAD or len(changes) % 2 == 0):
                adds.append(self._add(self._repositories[len(adds)]))
                changes.append(adds[-1])
            else:
                changes.append(self.remove(adds[removed]))
                removed += 1
            # At random, as independent users would: never in step with the poller of the log.
            rest = random.expovariate(CHANGES_PER_SECOND) - (time.perf_counter() - began)
            time.sleep(max(0.0, rest))
        return changes

    def remove(self, added: Change) -> Change:
        row = self._app.connection.execute(_REMOVE, (added.row_id,)).fetchone()
        assert row is not None
        return Change("DELETE", added.row_id, added.repository_id, row[0])

    def _add(self, repository_id: UUID) -> Change:
        row_id = uuid4()
        row = self._app.connection.execute(_ADD, (row_id, self._workspace, repository_id)).fetchone()
        assert row is not None
        return Change("INSERT", row_id, repository_id, row[0])


Samples = dict[str, list[list[float]]]


class _Measurement:
    """The turns. Samples are seconds, by operation, a list for each turn."""

    def __init__(self, app: Application, repositories: Iterator[UUID]) -> None:
        self._app = app
        self._repositories = repositories
        self.floor: Samples = {"INSERT": [], "DELETE": []}
        self.ours: Samples = {"INSERT": [], "DELETE": []}
        self.arrivals: list[float] = []
        self.calls: list[float] = []

    async def run(self, daemon_pid: int, bare: Bare) -> None:
        """Half of the turns."""
        self._daemon_pid, self._bare = daemon_pid, bare
        for _ in range(TURNS // 2):
            changes = await self._turn(stopped=self._daemon_pid)
            self._keep(self.floor, changes, self._floor_seconds)
            changes = await self._turn(stopped=self._bare.process.pid)
            self._keep(self.ours, changes, self._our_seconds)

    async def unseen(self, old: _Changes, rows: Sequence[Change]) -> list[float]:
        """With the bare client stopped as before."""
        os.kill(self._bare.process.pid, signal.SIGSTOP)
        removed = []
        for row in rows:
            removed.append(old.remove(row))
            await anyio.sleep(random.uniform(0.5, 1.5))
        await self._all_right()
        return [self._our_seconds(change) for change in removed]

    async def _turn(self, *, stopped: int) -> list[Change]:
        changes = _Changes(self._app, list(islice(self._repositories, ADDS_PER_TURN)))
        os.kill(stopped, signal.SIGSTOP)
        try:
            done = await anyio.to_thread.run_sync(changes.run)
            last = done[-1]
            if stopped == self._daemon_pid:
                await eventually(lambda: ("DELETE", str(last.row_id)) in self._bare.heard)
            else:
                await self._all_right()
        finally:
            os.kill(stopped, signal.SIGCONT)
        await eventually(lambda: all((each.operation, str(each.row_id)) in self._bare.heard for each in done))
        await self._all_right()
        return done

    async def _all_right(self) -> None:
        await eventually(lambda: self._app.wrong_rows() == 0, 30)
        await anyio.sleep(0.3)  # nothing of this turn may disturb the next

    def _keep(self, samples: Samples, changes: Sequence[Change], seconds: Callable[[Change], float]) -> None:
        for operation, turns in samples.items():
            turns.append([seconds(each) for each in changes if each.operation == operation])

    def _floor_seconds(self, change: Change) -> float:
        arrived_at, call_seconds = self._bare.heard[change.operation, str(change.row_id)]
        self.arrivals.append(arrived_at - self._committed_at(change))
        self.calls.append(call_seconds)
        return self.arrivals[-1] + call_seconds

    def _our_seconds(self, change: Change) -> float:
        key = (change.repository_id, change.operation == "INSERT")
        rows = self._app.connection.execute(_APPLIED, key).fetchall()
        assert rows, "a change without a consequence"
        return max(row[0] for row in rows) - self._committed_at(change)

    def _committed_at(self, change: Change) -> float:
        row = self._app.connection.execute(_COMMITTED, (change.transaction,)).fetchone()
        assert row is not None
        committed_at: float = row[0]
        return committed_at


def _report(measure: _Measurement, unseen: Sequence[float]) -> dict[str, Any]:
    floor = {operation: list(chain(*turns)) for operation, turns in measure.floor.items()}
    ours = {operation: list(chain(*turns)) for operation, turns in measure.ours.items()}
    adds, removes = floor["INSERT"], floor["DELETE"]
    ratios = {
        name: [
            median(mine) / median(theirs)
            for mine, theirs in zip(measure.ours[operation], measure.floor[operation], strict=True)
        ]
        for name, operation in (("adds", "INSERT"), ("removes", "DELETE"))
    }
    return {
        "changes_per_second": CHANGES_PER_SECOND,
        "turns": TURNS,
        "changes_each": len(adds) + len(removes),
        "p50_ratio_by_turn": {name: spread(values, 2) for name, values in ratios.items()},
        "ours_ms": {
            "adds": _milliseconds(ours["INSERT"]),
            "removes": _milliseconds(ours["DELETE"]),
            "removes_of_unseen_rows": _milliseconds(unseen),
        },
        "floor_ms": {
            "adds": _milliseconds(adds),
            "removes": _milliseconds(removes),
            "arrival": _milliseconds(measure.arrivals),
            "no_op_call": _milliseconds(measure.calls),
        },
        "bars": {
            "adds_p50_ratio": at_most(median(ours["INSERT"]) / median(adds), 1.10, 2),
            "adds_p99_ratio": at_most(percentile(ours["INSERT"], 99) / percentile(adds, 99), 1.5, 2),
            "removes_p50_ratio": at_most(median(ours["DELETE"]) / median(removes), 1.25, 2),
            "removes_of_unseen_rows_p50_ratio": at_most(median(unseen) / median(removes), 1.25, 2),
        },
    }


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": round(percentile(seconds, percent) * 1000, 1) for percent in (50, 95, 99)}
