"""The role that the manual offers instead of service_role: it suffices, and it may do nothing else."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import psycopg
import pytest

from priorityd.daemon.sandbox.migrate import apply_migrations
from tests.support.daemon_process import eventually
from tests.support.database import Database
from tests.support.stack import NO_TIMER, Stack

DEPLOY = Path(__file__).parents[2] / "deploy"
ROLE_SQL = (DEPLOY / "sql" / "restricted_role.sql").read_text()
UNDO_SQL = (DEPLOY / "sql" / "drop_restricted_role.sql").read_text()
MANUAL = (DEPLOY.parent / "docs" / "security.md").read_text()


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """The role in this test's database; roles are the server's, so it is dropped again."""
    connection = database.connect()
    connection.execute(ROLE_SQL.encode())
    yield "priorityd"
    connection.execute(UNDO_SQL.encode())


@pytest.fixture
def settings(stack: Stack, role: str) -> dict[str, Any]:
    """What the manual says to set."""
    claims = {"role": role, "iat": int(time.time()), "exp": int(time.time()) + 3600}
    return {
        "SUPABASE_SERVICE_ROLE_KEY": stack.server.keys.sign(claims),
        "PRIORITYD_GATEWAY_KEY": stack.server.anon_key,
    }


async def test_the_daemon_works_as_that_role(stack: Stack, settings: dict[str, Any]) -> None:
    app = stack.app
    workspace, (first, second) = app.workspace(), app.repositories(2)
    async with stack.daemon(**NO_TIMER, **settings) as daemon:
        await eventually(lambda: daemon.metric("leader"))
        app.add(workspace, first, second)
        await eventually(lambda: (app.row(first)[0], app.row(second)[0]) == ("high", "high"))
        assert await daemon.metric("events_total", table="workspace_repositories", operation="INSERT") == 2
        app.remove(workspace, first)
        await eventually(lambda: app.row(first)[0] == "medium")
        daemon.process.send_signal(signal.SIGHUP)
        done = (await eventually(lambda: daemon.logged("resync_done", trigger="signal")))[0]
        assert (done["examined"], done["errors"]) == (2, [])
        assert await daemon.metric("call_errors_total") == 0
        assert await daemon.metric("reconnects_total") == 0
        assert await daemon.stop() == 0


async def test_every_command_works_as_that_role(stack: Stack, settings: dict[str, Any]) -> None:
    app = stack.app
    workspace, added = app.workspace(), app.repository()
    app.add(workspace, added)
    repository = str(added)
    for arguments in (
        ["sync", "--dry-run", "--repository", repository],
        ["sync"],
        ["status"],
        ["explain", repository],
        ["pin", repository, "low"],
        ["unpin", repository],
        ["rollback", "--yes"],
    ):
        code, out, err = await stack.priorityd(*arguments, **settings)
        assert code in (0, 10), (arguments, out, err)
    code, out, _ = await stack.priorityd("check", "--json", **settings)
    assert (code, json.loads(out)["ok"]) == (0, True)
    assert {finding["outcome"] for finding in json.loads(out)["findings"]} <= {"ok", "warning"}


async def test_a_policy_that_hides_memberships_downgrades_nothing_and_is_named(
    stack: Stack, settings: dict[str, Any]
) -> None:
    app = stack.app
    workspace, repository = app.workspace(), app.repository()
    app.add(workspace, repository)
    assert (await stack.priorityd("sync", **settings))[0] == 0
    app.connection.execute("create policy mine on workspace_repositories as restrictive using (is_pinned)")
    code, _, err = await stack.priorityd("sync", "--repository", str(repository), **settings)
    assert code != 0
    assert "row level security may hide rows of workspace_repositories from the role priorityd" in err
    code, out, _ = await stack.priorityd("check", **settings)
    assert code == 1
    assert "FAILED   role: row level security may hide rows of workspace_repositories" in out
    async with stack.daemon(ready=False, **settings) as daemon:
        await eventually(lambda: daemon.logged("sweep_failed") or daemon.logged("resync_failed"))
        assert await daemon.answers("/readyz", 503)
    assert app.row(repository)[0] == "high"


async def test_without_a_gateway_key_the_gateway_refuses_its_token(
    stack: Stack, settings: dict[str, Any]
) -> None:
    code, _, err = await stack.priorityd("status", **{**settings, "PRIORITYD_GATEWAY_KEY": ""})
    assert code == 77
    assert str(settings["SUPABASE_SERVICE_ROLE_KEY"]) not in err


def test_it_may_call_every_function_and_see_every_table_of_the_migrations(
    database: Database, role: str
) -> None:
    connection = database.connect()
    functions = connection.execute(
        "select oid::regprocedure::text, has_function_privilege(%s, oid, 'execute') from pg_proc"
        " where pronamespace = 'public'::regnamespace and proname <> 'set_updated_at'",
        (role,),
    ).fetchall()
    assert len(functions) >= 20
    assert [name for name, allowed in functions if not allowed] == []
    tables = connection.execute(
        "select relname, has_table_privilege(%s, oid, 'select') from pg_class"
        " where relkind = 'r' and (relnamespace = 'priorityd'::regnamespace or relname like %s)",
        (role, "%priorit%"),
    ).fetchall()
    assert len(tables) >= 12
    assert [name for name, allowed in tables if not allowed] == []


@pytest.mark.parametrize(
    "statement",
    [
        "select poll_background_jobs(gen_random_uuid())",
        "select poll_background_jobs(gen_random_uuid(), 0)",
        "select open_priority_outbox()",
        "select claim_priority_changes(gen_random_uuid())",
        "select return_priority_changes(gen_random_uuid(), '{1}', 'down', 1)",
        "select mark_priority_changes_dispatched('{1}')",
        "select abandon_priority_changes('{1}', '{refused}')",
        "select trim_priority_changes()",
        "select workspace_priority_snapshot()",
        "select find_repositories(null, array['acme/web'])",
        "select queue_repository_jobs('[]', 'reviews')",
        "select release_ordered_jobs(gen_random_uuid(), 1)",
        "select mark_jobs_sent('{}')",
        "select return_unsent_jobs(gen_random_uuid(), '{}')",
        "select check_job_lanes()",
        "select list_ordered_jobs()",
        "select count_ordered_jobs()",
        "select cancel_ordered_jobs('{}')",
    ],
)
def test_it_may_announce_measure_and_release(database: Database, role: str, statement: str) -> None:
    connection = database.connect()
    connection.execute(
        "with r as (insert into repositories default values returning id), w as"
        " (insert into workspaces default values returning id), t as"
        " (insert into tracked_repositories (repository_id) select id from r)"
        " insert into workspace_repositories (workspace_id, repository_id) select w.id, r.id from w, r"
    )
    connection.execute("select open_priority_outbox(); select sweep_workspace_priorities()")
    answer = database.connect(role).execute(statement.encode()).fetchone()
    assert answer is not None
    assert "may not read" not in str(answer)


def test_it_may_do_all_that_becomes_of_an_ordered_job(database: Database, role: str) -> None:
    owner, connection = database.connect(), database.connect(role)

    def call(query: str, *args: object) -> Any:
        row = connection.execute(query.encode(), args or None).fetchone()
        assert row is not None
        return row[0]

    owner.execute("insert into repositories default values")
    jobs = [
        call(
            "select queue_repository_jobs(%s, 'reviews') -> 'jobs' -> 0 ->> 'job_id'",
            json.dumps([{"repository_id": str(key)}]),
        )
        for (key,) in owner.execute("select id from repositories").fetchall() * 3
    ]
    daemon = str(uuid4())
    released = call("select release_ordered_jobs(%s, 2) -> 'jobs'", daemon)
    assert [job["job_id"] for job in released] == jobs[:2]
    assert call("select fail_refused_jobs(%s::uuid[], '{no}')", jobs[:1])["failed"] == 1
    assert call("select return_unsent_jobs(%s, %s::uuid[])", daemon, jobs[1:2]) == {"returned": 1}
    assert call("select cancel_ordered_jobs(%s::uuid[])", jobs)["cancelled"] == 2


@pytest.mark.parametrize(
    "statement",
    [
        "insert into tracked_repositories (repository_id) values (gen_random_uuid())",
        "delete from tracked_repositories",
        "update tracked_repositories set tracking_enabled = false",
        "insert into workspace_repositories default values",
        "update workspace_repositories set notes = 'x'",
        "delete from workspace_repositories",
        "truncate workspace_repositories",
        "select owner_id from workspaces",
        "update repositories set owner = 'x'",
        "delete from background_jobs",
        "update background_jobs set repository_id = null",
        "update priorityd.migrations set set_number = 9",
        "create table mine (id integer)",
    ],
)
def test_it_may_do_nothing_else(database: Database, role: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect(role).execute(statement.encode())


def test_applying_it_again_changes_nothing(database: Database, role: str) -> None:
    connection = database.connect()
    before = connection.execute("select polname, polrelid from pg_policy order by 1, 2").fetchall()
    connection.execute(ROLE_SQL.encode())
    assert connection.execute("select polname, polrelid from pg_policy order by 1, 2").fetchall() == before


def test_an_upgrade_needs_no_second_run(database: Database, role: str) -> None:
    connection = database.connect()
    connection.execute("drop table workspace_priority_heartbeats; drop function sweep_workspace_priorities")
    connection.execute("drop table priorityd.leases")
    connection.execute("delete from priorityd.created where what like '%heartbeats'")
    apply_migrations(connection)
    daemon = database.connect(role)
    daemon.execute("select beat_workspace_priorities(gen_random_uuid()), sweep_workspace_priorities()")
    assert daemon.execute("select count(*) from workspace_priority_heartbeats").fetchone() == (1,)
    daemon.execute("select hold_workspace_priority_lease(gen_random_uuid(), 10)")


def test_it_holds_no_table_while_it_waits_for_another(database: Database) -> None:
    """Plain reads of the first would stop behind a long report on the second."""
    connection, report, other = database.connect(), database.connect(autocommit=False), database.connect()
    report.execute("select count(*) from workspace_repositories")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        connection.execute(ROLE_SQL.encode())
    other.execute("set lock_timeout = '1s'; select count(*) from tracked_repositories")
    report.rollback()
    connection.execute(ROLE_SQL.encode())
    connection.execute(UNDO_SQL.encode())


def test_its_undo_leaves_nothing_of_it(database: Database) -> None:
    connection = database.connect()
    policies = "select count(*) from pg_policy"
    before = connection.execute(policies).fetchone()
    connection.execute(ROLE_SQL.encode())
    assert connection.execute(policies).fetchone() != before
    connection.execute(UNDO_SQL.encode())
    assert connection.execute(policies).fetchone() == before
    assert connection.execute("select from pg_roles where rolname = 'priorityd'").fetchone() is None


async def test_the_manuals_way_to_make_the_token_works(stack: Stack, role: str, tmp_path: Path) -> None:
    found = re.search(r"<!-- token -->\n+```sh\n/opt/priorityd/bin/python (.*?)```", MANUAL, re.DOTALL)
    assert found, "the manual says how to make the token"
    # Without a terminal the secret is read from standard input.
    done = await anyio.run_process(
        ["/bin/sh", "-c", f"{sys.executable} {found[1]}"],
        input=f"{stack.server.keys.secret}\n".encode(),
        cwd=tmp_path,
        start_new_session=True,
    )
    assert stack.server.keys.secret not in done.stdout.decode()
    token = (tmp_path / "key").read_text()
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    settings: dict[str, Any] = {
        "SUPABASE_SERVICE_ROLE_KEY": token,
        "PRIORITYD_GATEWAY_KEY": stack.server.anon_key,
    }
    code, _, err = await stack.priorityd("status", **settings)
    assert (code, err) == (0, "")
