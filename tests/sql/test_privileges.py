"""Nothing of this is for browsers: anon and authenticated can neither call nor read any of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from priorityd.daemon.sandbox.migrate import apply_migrations
from tests.support.database import Database, schema_sql
from tests.support.schemas import SCHEMAS
from tests.support.world import World, session

TABLES = ("repository_priority_changes", "workspace_priority_heartbeats")
OURS = """
    select p.oid::regprocedure::text from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname <> 'set_updated_at'
    order by 1
"""


@pytest.fixture
def stranger(world: World) -> Iterator[World]:
    """A session whose role has no other rights than every role has."""
    world.execute("create role stranger_of_this_test")
    world.execute("grant stranger_of_this_test to current_user")
    world.execute("grant usage on schema public to stranger_of_this_test")
    yield world
    world.execute("reset role; drop owned by stranger_of_this_test; drop role stranger_of_this_test")


@pytest.mark.parametrize("role", ["anon", "authenticated", "stranger_of_this_test"])
def test_other_roles_have_no_right_to_anything(stranger: World, role: str) -> None:
    functions = [row[0] for row in stranger.execute(OURS)]
    assert len(functions) >= 12
    for function in functions:
        assert not stranger.value("select has_function_privilege(%s, %s, 'execute')", role, function), (
            function
        )
    for table in TABLES:
        for right in ("select", "insert", "update", "delete", "truncate", "references", "trigger"):
            assert not stranger.value("select has_table_privilege(%s, %s, %s)", role, table, right), (
                table,
                right,
            )
    assert not stranger.value("select has_schema_privilege(%s, 'priorityd', 'usage, create')", role)


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize(
    "statement",
    [
        "select sync_workspace_priorities(null)",
        "select sweep_workspace_priorities()",
        "select resync_workspace_priorities_page(null, 10)",
        "select get_repository_priorities(null)",
        "select explain_repository_priority(gen_random_uuid())",
        "select set_manual_priority(gen_random_uuid(), 'high')",
        "select workspace_priority_snapshot()",
        "select rollback_workspace_priorities()",
        "select beat_workspace_priorities(gen_random_uuid())",
        "select hold_workspace_priority_lease(gen_random_uuid(), 10)",
        "select release_workspace_priority_lease(gen_random_uuid())",
        "select check_workspace_priorities()",
        "select get_workspace_repository_ids()",
        "select find_repositories()",
        "select workspace_priority_schema_version()",
        "select poll_background_jobs(gen_random_uuid())",
        "select build_repository_job_events('reviews', '[]')",
        "select * from priorityd.memberships()",
        "select * from priorityd.ordered_jobs",
        "select open_priority_outbox()",
        "select claim_priority_changes(gen_random_uuid())",
        "select mark_priority_changes_dispatched('{1}')",
        "select abandon_priority_changes('{1}', '{x}')",
        "select return_priority_changes(gen_random_uuid(), '{1}', 'x', 0)",
        "select priority_outbox_depth()",
        "select trim_priority_changes()",
        "select queue_repository_jobs('[]', 'reviews')",
        "select release_ordered_jobs(gen_random_uuid(), 1)",
        "select mark_jobs_sent('{}')",
        "select return_unsent_jobs(gen_random_uuid(), '{}')",
        "select fail_refused_jobs('{}', '{}')",
        "select check_job_lanes()",
        "select cancel_ordered_jobs('{}')",
        "select list_ordered_jobs()",
        "select count_ordered_jobs()",
        *(f"select * from {table}" for table in TABLES),
    ],
)
def test_callers_of_the_api_are_refused(database_of_all: Database, role: str, statement: str) -> None:
    with (
        database_of_all.connect(role) as caller,
        pytest.raises(psycopg.Error, match="permission denied") as refused,
    ):
        caller.execute(statement.encode())
    assert refused.value.sqlstate == "42501"


def test_tables_have_row_level_security_and_no_policies(world: World) -> None:
    rows = world.execute(
        """select c.relname, c.relrowsecurity, exists (select from pg_policy p where p.polrelid = c.oid)
           from pg_class c where c.relname = any (%s) and c.relkind = 'r' order by 1""",
        list(TABLES),
    ).fetchall()
    assert rows == [(table, True, False) for table in TABLES]


def test_functions_run_as_their_caller_and_show_triggers_the_search_path_that_they_know(world: World) -> None:
    """PostgREST's own: what the application's triggers, checks and policies see when it writes."""
    rows = world.execute(
        """select p.pronamespace::regnamespace::text, p.proname, p.prosecdef, p.proconfig from pg_proc p
           where p.pronamespace in ('public'::regnamespace, 'priorityd'::regnamespace)
               and p.proname <> 'set_updated_at'"""
    ).fetchall()
    assert len(rows) > 80
    for schema, name, as_owner, config in rows:
        assert not as_owner, name
        paths = [setting for setting in config or () if setting.startswith("search_path=")]
        assert paths == (["search_path=public, extensions"] if schema == "public" else []), name


def test_callable_functions_bound_their_own_time(world: World) -> None:
    """PostgREST takes a function's statement_timeout for the transaction: the role's 8 s are too few."""
    readers = (
        "workspace_priority_snapshot",
        "get_workspace_repository_ids",
        "find_repositories",
        "explain_repository_priority",
        "priority_outbox_depth",
        "list_ordered_jobs",
        "count_ordered_jobs",
    )
    writers = (
        "sync_workspace_priorities",
        "sweep_workspace_priorities",
        "resync_workspace_priorities_page",
        "set_manual_priority",
        "rollback_workspace_priorities",
        "beat_workspace_priorities",
        "poll_background_jobs",
        "hold_workspace_priority_lease",
        "release_workspace_priority_lease",
        "open_priority_outbox",
        "claim_priority_changes",
        "mark_priority_changes_dispatched",
        "abandon_priority_changes",
        "return_priority_changes",
        "trim_priority_changes",
    )
    for name in readers + writers:
        config = world.value("select proconfig from pg_proc where proname = %s", name)
        settings = dict(setting.split("=", 1) for setting in config)
        assert "statement_timeout" in settings, name
        assert ("lock_timeout" in settings) == (name in writers), name


def test_a_role_of_an_operator_s_own_gets_what_later_migrations_bring(world: World, stranger: World) -> None:
    """One grant is all that it takes; and whatever it was granted besides stays."""
    world.execute("grant usage on schema priorityd to stranger_of_this_test")
    world.execute("revoke all on function sweep_workspace_priorities from public, service_role")
    apply_migrations(world.connection)
    for role in ("service_role", "stranger_of_this_test"):
        for (function,) in world.execute(OURS):
            assert world.value("select has_function_privilege(%s, %s, 'execute')", role, function), function
        for table in (*TABLES, "priorityd.ordered_jobs", "priorityd.outbox"):
            assert world.value("select has_table_privilege(%s, %s, 'insert')", role, table), table
        assert not world.value("select has_table_privilege(%s, 'priorityd.migrations', 'update')", role)
    world.execute("set role stranger_of_this_test; select from workspace_priority_heartbeats; reset role")


def test_it_sees_tables_that_the_application_has_put_under_row_level_security(
    world: World, stranger: World
) -> None:
    """An event trigger may do so to every new table."""
    world.execute("alter table priorityd.outbox enable row level security")
    world.execute("grant usage on schema priorityd to stranger_of_this_test")
    world.execute("select priorityd.grant_access(); set role stranger_of_this_test")
    assert world.call("priority_outbox_depth")["pending"] == 0


def test_usage_that_default_privileges_give_on_new_schemas_is_taken_back(empty_database: Database) -> None:
    world = session(empty_database)
    world.connection.execute(schema_sql("roles"))
    world.execute("alter default privileges grant usage on schemas to anon, authenticated")
    SCHEMAS["enum"].create(world.connection)
    apply_migrations(world.connection)
    for role in ("anon", "authenticated"):
        assert not world.value("select has_schema_privilege(%s, 'priorityd', 'usage')", role)
        assert not world.value("select has_table_privilege(%s, 'priorityd.outbox', 'select')", role)


def test_background_jobs_made_by_a_migration_are_for_the_server_side_alone(empty_database: Database) -> None:
    world = session(empty_database)
    world.connection.execute(schema_sql("roles"))
    SCHEMAS["enum"].create(world.connection)
    apply_migrations(world.connection)
    for right in ("select", "insert", "update", "delete", "truncate", "references", "trigger"):
        if right in ("select", "insert", "update", "delete"):
            assert world.value("select has_table_privilege('service_role', 'background_jobs', %s)", right)
        for role in ("anon", "authenticated"):
            assert not world.value("select has_table_privilege(%s, 'background_jobs', %s)", role, right)


def test_nothing_is_written_without_a_where(world: World) -> None:
    """Supabase loads `safeupdate` for what comes through the API, and it refuses such statements (21000)."""
    sources = world.execute(
        """select proname, prosrc from pg_proc
           where pronamespace in ('public'::regnamespace, 'priorityd'::regnamespace)"""
    ).fetchall()
    written = 0
    for name, source in sources:
        for match in re.finditer(
            r"(?<!for no key )(?<!do )(?<!for )\b(update|delete from) (public|priorityd)\.", source
        ):
            written += 1
            depth, end = 0, match.end()
            while end < len(source) and depth >= 0 and source[end] != ";":
                depth += {"(": 1, ")": -1}.get(source[end], 0)
                end += 1
            assert re.search(r"\bwhere\b", source[match.start() : end]), (name, source[match.start() : end])
    assert written > 25


def test_nothing_hangs_on_workspace_repositories(database: Database) -> None:
    """A trigger there could make workspace operations fail or wait."""
    world = session(database)
    assert not world.value(
        """select count(*) from pg_trigger
           where tgrelid = 'workspace_repositories'::regclass and not tgisinternal"""
    )
