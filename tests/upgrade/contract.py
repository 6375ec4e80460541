"""What a released daemon asks of the database, and what it was answered when it was released.

Each file in `releases/` is one release: the set of migrations it came with, its calls, an answer to each.
A later set must leave every call possible and every answer readable: a daemon of that release goes on working
while, and after, the database is upgraded. `python -m tests.upgrade.contract` records this version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from priorityd.core.database.schema import MIGRATION_SET
from priorityd.core.priorities import TRIGGERS
from priorityd.daemon.sandbox.migrate import apply_migrations
from priorityd.daemon.sandbox.postgres import embedded_postgres
from tests.support.database import schema_sql

RELEASES: Final = Path(__file__).parent / "releases"
REPOSITORY, UNPINNED, WORKSPACE, DAEMON, JOB, OTHER_JOB = (UUID(int=number) for number in range(1, 7))

Json = Any
Connection = psycopg.Connection[Any]

# In an order in which each finds something to answer.
CALLS: Final[tuple[tuple[str, dict[str, Json]], ...]] = (
    ("workspace_priority_schema_version", {}),
    ("check_workspace_priorities", {}),
    ("open_priority_outbox", {}),
    ("beat_workspace_priorities", {"p_daemon_id": str(DAEMON)}),
    (
        "sync_workspace_priorities",
        {"p_repository_ids": [str(REPOSITORY)], "p_trigger": "event", "p_dry_run": True},
    ),
    (
        "sweep_workspace_priorities",
        {"p_trigger": "sweep", "p_limit": 5000, "p_dry_run": True},
    ),
    (
        "resync_workspace_priorities_page",
        {"p_after": None, "p_limit": 1, "p_trigger": "resync", "p_dry_run": False},
    ),
    ("claim_priority_changes", {"p_daemon_id": str(DAEMON), "p_limit": 10, "p_claim_seconds": 60.0}),
    ("priority_outbox_depth", {}),
    (
        "return_priority_changes",
        {"p_daemon_id": str(DAEMON), "p_ids": [1], "p_error": "late", "p_delay_seconds": 1.0},
    ),
    ("mark_priority_changes_dispatched", {"p_ids": [1]}),
    ("abandon_priority_changes", {"p_ids": [1], "p_reasons": ["refused"]}),
    ("trim_priority_changes", {"p_keep_days": 90, "p_after": 0, "p_limit": 5000}),
    ("poll_background_jobs", {"p_daemon_id": str(DAEMON), "p_counted_page": None, "p_limit": 1000}),
    (
        "queue_repository_jobs",
        {
            "p_jobs": [
                {"job_id": str(job), "job_type": "recent-prs", "repository_id": str(REPOSITORY), "data": {}}
                for job in (JOB, OTHER_JOB)
            ]
        },
    ),
    (
        "build_repository_job_events",
        {"p_job_type": "reviews", "p_jobs": [{"repository_id": str(REPOSITORY)}, {"repository_id": "none"}]},
    ),
    ("list_ordered_jobs", {"p_job_type": None, "p_repository_id": None, "p_limit": 10}),
    ("count_ordered_jobs", {}),
    (
        "release_ordered_jobs",
        {
            "p_daemon_id": str(DAEMON),
            "p_in_flight": 10,
            "p_limit": 1,
            "p_promote_after_seconds": 72_000.0,
            "p_claim_seconds": 60.0,
            "p_lease_seconds": 3600.0,
        },
    ),
    ("mark_jobs_sent", {"p_job_ids": [str(JOB)], "p_lease_seconds": 3600.0}),
    ("return_unsent_jobs", {"p_daemon_id": str(DAEMON), "p_job_ids": [str(OTHER_JOB)]}),
    (
        "settle_lost_jobs",
        {"p_job_ids": [str(OTHER_JOB)], "p_statuses": ["running"], "p_lease_seconds": 3600.0},
    ),
    ("fail_refused_jobs", {"p_job_ids": [str(JOB)], "p_reasons": ["refused"]}),
    ("check_job_lanes", {}),
    (
        "cancel_ordered_jobs",
        {"p_job_ids": [str(OTHER_JOB)], "p_repository_id": None, "p_job_type": None},
    ),
    ("set_manual_priority", {"p_repository_id": str(UNPINNED), "p_priority": "low"}),
    ("get_repository_priorities", {"p_repository_ids": [str(REPOSITORY)]}),
    ("find_repositories", {"p_repository_ids": [str(REPOSITORY)], "p_names": ["acme/web"]}),
    ("get_workspace_repository_ids", {"p_after": None, "p_limit": 10}),
    ("explain_repository_priority", {"p_repository_id": str(REPOSITORY)}),
    ("workspace_priority_snapshot", {}),
    ("hold_workspace_priority_lease", {"p_daemon_id": str(DAEMON), "p_seconds": 13.0}),
    ("release_workspace_priority_lease", {"p_daemon_id": str(DAEMON)}),
    ("rollback_workspace_priorities", {}),
)


def populate(connection: Connection) -> None:
    """One repository in a workspace, not yet high, and one outside."""
    connection.execute("insert into workspaces (id, name) values (%s, 'Acme')", (WORKSPACE,))
    for repository in (REPOSITORY, UNPINNED):
        connection.execute("insert into repositories (id) values (%s)", (repository,))
        connection.execute("insert into tracked_repositories (repository_id) values (%s)", (repository,))
    connection.execute(
        "insert into workspace_repositories (workspace_id, repository_id) values (%s, %s)",
        (WORKSPACE, REPOSITORY),
    )


def call(connection: Connection, function: str, arguments: dict[str, Json]) -> Json:
    """The answer to a call as PostgREST makes it: by names, with the types that the function declares."""
    types = dict(
        connection.execute(
            "select a.name, format_type(a.type, null) from pg_proc p,"
            " unnest(p.proargnames, p.proargtypes::oid[]) as a (name, type)"
            " where p.pronamespace = 'public'::regnamespace and p.proname = %s",
            (function,),
        ).fetchall()
    )
    parts = [
        sql.SQL("{} => (select x.value from jsonb_to_record(%s) as x (value {}))").format(
            sql.Identifier(name),
            sql.SQL(types[name]),
        )
        for name in arguments
    ]
    query = sql.SQL("select public.{}({})").format(sql.Identifier(function), sql.SQL(", ").join(parts))
    row = connection.execute(query, [Jsonb({"value": value}) for value in arguments.values()]).fetchone()
    assert row is not None
    return row[0]


def unreadable(answer: Json, released: Json, path: str = "answer") -> Iterator[str]:
    """Where an answer lacks what the released one had, or has something else in its place."""
    if released is None:
        return
    if isinstance(released, dict) and isinstance(answer, dict):
        for name, value in released.items():
            if name in answer:
                yield from unreadable(answer[name], value, f"{path}.{name}")
            else:
                yield f"{path} has no {name}"
    elif isinstance(released, list) and isinstance(answer, list):
        for inner in answer[:1] if released else []:
            yield from unreadable(inner, released[0], f"{path}[]")
        if released and not answer:
            yield f"{path} is empty"
    elif _kind(answer) != _kind(released):
        yield f"{path} is {_kind(answer)}, not {_kind(released)}"


def _kind(value: Json) -> str:
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def _record() -> Json:
    with embedded_postgres() as postgres, psycopg.connect(postgres.url(), autocommit=True) as connection:
        for name in ("roles", "application"):
            connection.execute(schema_sql(name))
        apply_migrations(connection)
        populate(connection)
        calls = [
            {"function": name, "arguments": arguments, "answer": call(connection, name, arguments)}
            for name, arguments in CALLS
        ]
    return {"set": MIGRATION_SET, "triggers": list(TRIGGERS), "calls": calls}


if __name__ == "__main__":
    print(json.dumps(_record(), indent=1))
