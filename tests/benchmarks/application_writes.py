"""What priorityd costs the application: its own writes with and without it, and with each of our indexes left
out or in another form.

Each write is one statement for many rows, in a transaction. WAL bytes and the share of updates that touch
no index (HOT) do not depend on how busy the machine is; times do, so they are given as ratios. Before each
round the tables are rewritten with a tenth of each page free, as updates and vacuum leave them, and the
written rows are spread over all pages. On full pages no update is HOT, whatever the indexes; this also holds
for jobs that start right after they were queued. The cost of reads in each form is given as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import anyio.to_thread
import psycopg

from priorityd.daemon.sandbox.migrate import apply_migrations
from priorityd.daemon.sandbox.postgres import embedded_postgres
from tests.benchmarks.figures import Json
from tests.support.database import schema_sql

TRACKED, WRITTEN, ROUNDS = 100_000, 3000, 3
TABLES: Final = ("tracked_repositories", "workspace_repositories", "background_jobs")

_FILL = """
insert into workspaces (name) select 'workspace ' || n from generate_series(1, 2000) n;
insert into repositories (id) select gen_random_uuid() from generate_series(1, {tracked} + {written});
create table spare as select id as repository_id from repositories limit {written};
insert into tracked_repositories (repository_id)
select id from repositories where id not in (select repository_id from spare);
insert into workspace_repositories (workspace_id, repository_id)
select w.id, r.id
from (select repository_id as id, row_number() over () as n from tracked_repositories limit {tracked} / 4) r
join (select id, row_number() over () as n from workspaces) w on w.n in (1 + r.n % 2000, 1 + r.n / 5 % 2000);
insert into background_jobs (type, status, repository_id, created_at, started_at, completed_at)
select 'reviews', 'completed', r.id, t.at, t.at + interval '2 s', t.at + interval '5 s'
from repositories r, generate_series(0, 1) n,
    lateral (select now() - interval '1 h' - (n + random()) * interval '5 d' as at) t;
insert into background_jobs (type, status, repository_id, created_at)
select 'reviews', 'queued', id, now() - random() * interval '1 h' from repositories limit {tracked} / 20;
create table new_workspace as select gen_random_uuid() as id;
insert into workspaces (id) select id from new_workspace;
create table new_jobs as select gen_random_uuid() as id, repository_id from spare;
create table written as
select id, repository_id from tracked_repositories order by hashtext(id::text) limit {written};
create table pinned as select id from workspace_repositories order by hashtext(id::text) limit {written};
create table worked as
select id from background_jobs where status = 'completed' order by hashtext(id::text) limit {written};
{room};
analyze
"""
_ROOM = "alter table {table} set (fillfactor = 90)"
_PICKED = "from written p where t.id = p.id"
_WORKED = "from worked w where t.id = w.id"
_QUEUE = f"""
update background_jobs t set status = 'queued', started_at = null, completed_at = null {_WORKED}
"""


@dataclass(frozen=True)
class Write:
    """A statement of the application."""

    table: str
    name: str
    statement: str


WRITES: Final = (
    Write(
        "tracked_repositories",
        "insert",
        "insert into tracked_repositories (repository_id) select repository_id from spare",
    ),
    Write(
        "tracked_repositories",
        "last_sync_at",
        f"update tracked_repositories t set last_sync_at = now() {_PICKED}",
    ),
    Write(
        "tracked_repositories",
        "tracking_enabled",
        f"update tracked_repositories t set tracking_enabled = not tracking_enabled {_PICKED}",
    ),
    Write(
        "tracked_repositories",
        "delete",
        "delete from tracked_repositories t using spare s where t.repository_id = s.repository_id",
    ),
    Write(
        "workspace_repositories",
        "insert",
        """insert into workspace_repositories (workspace_id, repository_id)
           select w.id, p.repository_id from new_workspace w, written p""",
    ),
    Write(
        "workspace_repositories",
        "is_pinned",
        """update workspace_repositories t set is_pinned = not is_pinned
           from pinned p where t.id = p.id""",
    ),
    Write(
        "workspace_repositories",
        "delete",
        "delete from workspace_repositories t using new_workspace w where t.workspace_id = w.id",
    ),
    Write(
        "background_jobs",
        "insert",
        """insert into background_jobs (id, type, status, repository_id)
           select id, 'reviews', 'queued', repository_id from new_jobs""",
    ),
    Write(
        "background_jobs",
        "start",
        f"update background_jobs t set status = 'processing', started_at = now() {_WORKED}",
    ),
    Write(
        "background_jobs",
        "retry_count",
        f"update background_jobs t set retry_count = retry_count + 1 {_WORKED}",
    ),
    Write(
        "background_jobs",
        "end",
        f"update background_jobs t set status = 'completed', completed_at = now() {_WORKED}",
    ),
    Write("background_jobs", "delete", "delete from background_jobs t using new_jobs n where t.id = n.id"),
)

READS: Final = {
    "tracked_repositories": {
        "distribution": """
            select is_workspace_repo, priority, count(*), avg(workspace_count) from tracked_repositories
            where tracking_enabled = true group by is_workspace_repo, priority order by 1 desc, 2 desc""",
        "inversions": """
            select tr.repository_id, tr.priority, tr.is_workspace_repo, count(*) from tracked_repositories tr
            where tr.is_workspace_repo = true and tr.priority != 'high'
            group by tr.repository_id, tr.priority, tr.is_workspace_repo""",
        "a snapshot": "select workspace_priority_snapshot()",
        "a sweep": "select sweep_workspace_priorities()",
    },
    "workspace_repositories": {
        "a sweep": "select sweep_workspace_priorities()",
        "a change": "select sync_workspace_priorities(array(select repository_id from written limit 1))",
    },
    "background_jobs": {
        "a poll": """
            select poll_background_jobs(
                '00000000-0000-0000-0000-000000000001', (select page from priorityd.job_cursor)
            )""",
    },
}


@dataclass(frozen=True)
class Form:
    """One of our indexes in another form, or left out."""

    table: str
    name: str
    index: str
    instead: str | None = None


_PRIORITY, _COUNTS = "idx_tracked_repos_workspace_priority", "idx_tracked_repos_workspace_counts"
_DRIFT, _PAIR = "idx_tracked_repos_priority_drift", "idx_workspace_repositories_repository_workspace"
_STARTED, _FINISHED, _QUEUED = (f"idx_background_jobs_{name}" for name in ("started", "finished", "queued"))
FORMS: Final = (
    Form("tracked_repositories", "without the priority index", _PRIORITY),
    Form(
        "tracked_repositories",
        "priority index with tracking_enabled as its third column",
        _PRIORITY,
        "(is_workspace_repo, priority, tracking_enabled)",
    ),
    Form("tracked_repositories", "without the index of counts", _COUNTS),
    Form("tracked_repositories", "without the index of drift", _DRIFT),
    Form("workspace_repositories", "without the index of pairs", _PAIR),
    Form("background_jobs", "without the index of starts", _STARTED),
    Form("background_jobs", "index of starts as BRIN", _STARTED, "using brin (started_at)"),
    Form("background_jobs", "without the index of ends", _FINISHED),
    Form("background_jobs", "without the index of the queue", _QUEUED),
)

Connection = psycopg.Connection[Any]
Measured = dict[str, Json]


async def application_writes(tracked: int = TRACKED, written: int = WRITTEN, rounds: int = ROUNDS) -> Json:
    """See the module's docstring."""
    return await anyio.to_thread.run_sync(_application_writes, tracked, written, rounds)


def _application_writes(tracked: int, written: int, rounds: int) -> Json:
    with _server() as connection:
        room = "; ".join(_ROOM.format(table=table) for table in TABLES)
        connection.execute(_FILL.format(tracked=tracked, written=written, room=room).encode())
        without = {table: _measure(connection, table, rounds) for table in TABLES}
        apply_migrations(connection)
        ours = {table: _measure(connection, table, rounds) for table in TABLES}
        reads = {table: _read(connection, table, rounds) for table in TABLES}
        forms = [_in_form(connection, form, rounds) for form in FORMS]
    return {
        "tracked": tracked,
        "rows_a_write": written,
        "writes": [
            _beside(write, without[write.table][write.name], ours[write.table][write.name])
            for write in WRITES
        ],
        "reads": reads,
        "other_forms": [
            {
                "table": form.table,
                "form": form.name,
                "writes": [
                    _beside(write, ours[write.table][write.name], measured[write.name])
                    for write in WRITES
                    if write.table == form.table
                ],
                "reads": pages,
            }
            for form, (measured, pages) in zip(FORMS, forms, strict=True)
        ],
    }


@contextmanager
def _server() -> Iterator[Connection]:
    """The application alone, on a server without background work."""
    with embedded_postgres() as postgres, psycopg.connect(postgres.url(), autocommit=True) as connection:
        for name in ("roles", "application"):
            connection.execute(schema_sql(name))
        connection.execute("alter system set autovacuum = off")
        connection.execute("select pg_reload_conf()")
        yield connection


def _beside(write: Write, floor: Json, ours: Json) -> Json:
    return {
        "table": write.table,
        "write": write.name,
        "seconds_ratio": round(ours["seconds"] / floor["seconds"], 2),
        "wal_bytes_a_row": [floor["wal_bytes"], ours["wal_bytes"]],
        "hot_share": [floor["hot_share"], ours["hot_share"]],
    }


def _measure(connection: Connection, table: str, rounds: int) -> Measured:
    """The median of the rounds for each write to the table."""
    writes = [write for write in WRITES if write.table == table]
    found: dict[str, list[tuple[float, int, float | None]]] = {write.name: [] for write in writes}
    for _ in range(rounds):
        _tidy(connection, table)
        for write in writes:
            found[write.name].append(_once(connection, write))
    return {
        name: {
            "seconds": median(seconds for seconds, _, _ in each),
            "wal_bytes": round(median(wal for _, wal, _ in each)),
            "hot_share": each[0][2],
        }
        for name, each in found.items()
    }


def _once(connection: Connection, write: Write) -> tuple[float, int, float | None]:
    """Seconds, bytes of WAL per row, and the share of HOT updates."""
    connection.execute("select pg_stat_force_next_flush()")
    with connection.transaction():
        before = _value(connection, "select pg_current_wal_insert_lsn()")
        began = time.perf_counter()
        rows = connection.execute(write.statement.encode()).rowcount
        seconds = time.perf_counter() - began
        wal = _value(connection, "select pg_current_wal_insert_lsn() - %s::pg_lsn", before)
        updated, hot = _value(
            connection,
            "select array[n_tup_upd, n_tup_hot_upd] from pg_stat_xact_user_tables where relid = %s::regclass",
            write.table,
        )
    return seconds, round(wal / rows), round(hot / updated, 3) if updated else None


def _tidy(connection: Connection, table: str) -> None:
    connection.execute(_QUEUE.encode())
    connection.execute(f"vacuum (full, analyze) {table}".encode())
    connection.execute(f"vacuum {table}".encode())  # the visibility map
    connection.execute("checkpoint")


def _read(connection: Connection, table: str, rounds: int) -> Measured:
    """What each read of the table takes with warm caches."""
    for each in TABLES:
        _tidy(connection, each)
    answer: Measured = {}
    for name, query in READS[table].items():
        took = []
        for _ in range(1 + rounds):
            (explained,) = _value(connection, f"explain (analyze, buffers, format json) {query}")
            took.append(explained["Execution Time"])
        plan = explained["Plan"]
        answer[name] = {
            "pages": plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
            "milliseconds": round(median(took[1:]), 1),
        }
    return answer


def _in_form(connection: Connection, form: Form, rounds: int) -> tuple[Measured, Measured]:
    definition = _value(connection, "select definition from priorityd.indexes where name = %s", form.index)
    with _told(connection, form, definition):
        return _measure(connection, form.table, rounds), _read(connection, form.table, rounds)


@contextmanager
def _told(connection: Connection, form: Form, definition: str) -> Iterator[None]:
    """The index in this form for the length of the block; our functions accept it as the right one."""

    def build(instead: str | None) -> None:
        connection.execute(f"drop index if exists {form.index}".encode())
        if instead is not None:
            connection.execute(f"create index {form.index} on {form.table} {instead}".encode())

    connection.execute("delete from priorityd.indexes where name = %s", (form.index,))
    build(form.instead)
    yield
    build(definition)
    connection.execute(
        "insert into priorityd.indexes (name, table_name, definition) values (%s, %s, %s)",
        (form.index, form.table, definition),
    )


def _value(connection: Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]
