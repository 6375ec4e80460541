"""Several daemons side by side, and many changes a second for minutes: whether every row is right in the end,
how many calls a change costs, and how often the daemons get in each other's way.

Each change adds a repository to a workspace, or removes it, in a transaction of its own; half of the
repositories are in one at the start. All daemons receive all changes. Calls are counted by the database.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import httpx
import psycopg
from prometheus_client.parser import text_string_to_metric_families

from priorityd.daemon.sandbox.postgres import EmbeddedPostgres, embedded_postgres
from tests.benchmarks.database import application_of
from tests.benchmarks.figures import Json, at_most
from tests.benchmarks.large import BY_HAND
from tests.benchmarks.sandbox import sandbox_process
from tests.benchmarks.start import daemon_process
from tests.support.application import Application
from tests.support.daemon_process import PLAIN

DAEMONS: Final = 3
CHANGES_PER_SECOND: Final = 1000
SECONDS: Final = 600.0
REPOSITORIES, WORKSPACES = 100_000, 1000
_CLIENTS: Final = 4
_LONGEST_SECONDS: Final = 600
_SOON_SECONDS: Final = 1.0

_FILL = """
create table members (n integer primary key, workspace_id uuid, repository_id uuid);
insert into workspaces (name) select 'workspace ' || n from generate_series(1, {workspaces}) n;
insert into members
select r.n, w.id, r.repository_id
from (select repository_id, (row_number() over ())::integer as n from tracked_repositories) r
join (select id, row_number() over () as n from workspaces) w on w.n = 1 + r.n % {workspaces};
insert into workspace_repositories (workspace_id, repository_id)
select workspace_id, repository_id from members where n % 2 = 0
"""
_CHANGE = """
\\set n random(1, {repositories})
with gone as (
    delete from workspace_repositories w using members m
    where m.n = :n and w.workspace_id = m.workspace_id and w.repository_id = m.repository_id
    returning 1
)
insert into workspace_repositories (workspace_id, repository_id)
select m.workspace_id, m.repository_id from members m where m.n = :n and not exists (select from gone)
on conflict do nothing;
"""
_CALLS = """
select funcname, calls from pg_stat_user_functions
where schemaname = 'public' and funcname ~ '_workspace_priorities(_page)?$'
"""


async def fleet(
    seconds: float = SECONDS, rate: int = CHANGES_PER_SECOND, repositories: int = REPOSITORIES
) -> Json:
    """See the module's docstring."""
    return await anyio.to_thread.run_sync(_fleet, seconds, rate, repositories)


def _fleet(seconds: float, rate: int, repositories: int) -> Json:
    with ExitStack() as stack:
        postgres = stack.enter_context(embedded_postgres())
        app = stack.enter_context(application_of(postgres))
        app.connection.execute("alter system set track_functions = 'pl'")
        app.connection.execute("select pg_reload_conf()")
        app.repositories(repositories)
        app.connection.execute(_FILL.format(workspaces=WORKSPACES).encode())
        app.connection.execute(BY_HAND)
        app.connection.execute("vacuum analyze")
        settings = stack.enter_context(sandbox_process(postgres.url()))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logs = [directory / f"daemon {number}" for number in range(DAEMONS)]
        ports = [
            stack.enter_context(daemon_process(settings, log=stack.enter_context(log.open("wb"))))
            for log in logs
        ]
        before = _calls(app.connection)
        changes, longest_ms = _change(postgres, directory, seconds, rate, repositories)
        settled = _until_right(app)
        after = _calls(app.connection)
        metrics = [_metrics(port) for port in ports]
        deadlocks = _value(app, "select deadlocks from pg_stat_database where datname = current_database()")
        wrong = app.wrong_rows()
        locked = sum(_locked(log) for log in logs)
    calls = {name: after[name] - before.get(name, 0) for name in after}
    return {
        "daemons": DAEMONS,
        "repositories": repositories,
        "seconds": seconds,
        "changes": changes,
        "changes_per_second": round(changes / seconds),
        "longest_change_ms": longest_ms,
        "right_after_seconds": round(settled, 1),
        "calls": calls,
        "calls_per_change": round(sum(calls.values()) / changes, 3),
        "rows_found_locked": locked,
        "locked_per_change": round(locked / changes, 4),
        "daemon_metrics": metrics,
        "bars": {
            "wrong_rows": at_most(wrong, 0),
            "deadlocks": at_most(deadlocks, 0),
            "calls_per_change": at_most(sum(calls.values()) / changes, 1),
        },
    }


def _change(
    postgres: EmbeddedPostgres, directory: Path, seconds: float, rate: int, repositories: int
) -> tuple[int, float]:
    """How many changes were made, and how long the longest took, in milliseconds."""
    script = directory / "change.sql"
    script.write_text(_CHANGE.format(repositories=repositories))
    command = [str(postgres.bin_dir / "pgbench"), "-n", "-M", "prepared", "-f", str(script)]
    command += ["-c", str(_CLIENTS), "-j", "1", "-R", str(rate), "-T", str(round(seconds))]
    command += ["-l", "--log-prefix", str(directory / "changes"), postgres.url()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (failed,) = re.findall(r"number of failed transactions: (\d+)", done.stdout)
    assert failed == "0", done.stdout
    changes, longest = 0, 0
    for log in directory.glob("changes*"):
        for line in log.open():
            changes += 1
            longest = max(longest, int(line.split()[2]))
    return changes, longest / 1000


def _until_right(app: Application) -> float:
    began = time.monotonic()
    while app.wrong_rows():
        assert time.monotonic() - began < _LONGEST_SECONDS, f"{app.wrong_rows()} rows are still wrong"
        time.sleep(0.5)
    return time.monotonic() - began


def _calls(connection: psycopg.Connection[Any]) -> dict[str, int]:
    return {str(name): int(calls) for name, calls in connection.execute(_CALLS)}


def _value(app: Application, query: str) -> Any:
    row = app.connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def _locked(log: Path) -> int:
    """The repositories whose rows were locked by another daemon when this one came to them."""
    lines = (json.loads(line) for line in log.open() if '"repositories_locked"' in line)
    return sum(int(line["repositories"]) for line in lines)


def _metrics(port: int) -> Json:
    """What one daemon has received and done, and which share of it soon after the change."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, verify=PLAIN).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(name: str, **labels: str) -> float:
        named = [sample for sample in samples if sample.name == f"workspace_priority_{name}"]
        return sum(sample.value for sample in named if labels.items() <= sample.labels.items())

    applied = total("change_latency_seconds_count")
    soon = total("change_latency_seconds_bucket", le=str(_SOON_SECONDS))
    return {
        "events": round(total("events_total")),
        "batches": round(total("apply_seconds_count")),
        "rows_changed": round(total("changes_total")),
        "within_a_second": round(soon / applied, 3) if applied else None,
    }
