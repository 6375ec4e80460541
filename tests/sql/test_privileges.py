"""Nothing of this is for browsers: anon and authenticated can neither call nor read any of it."""

from __future__ import annotations

import uuid

import pytest

from daemon.sandbox.migrate import migration_files
from tests.conftest import Database
from tests.sql.world import World, session

TABLES = (
    "repository_priority_changes",
    "workspace_priority_heartbeats",
    "workspace_priority_job_cursor",
    "workspace_priority_job_hints",
    "workspace_priority_job_lanes",
    "workspace_priority_job_queue",
    "workspace_priority_job_turns",
    "workspace_priority_job_types",
    "workspace_priority_leases",
    "workspace_priority_migrations",
    "workspace_priority_ordered_jobs",
    "workspace_priority_outbox",
)
OURS = """
    select p.oid::regprocedure::text from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname <> 'set_updated_at'
    order by 1
"""


@pytest.fixture
def stranger(world: World) -> World:
    """A session whose role has no other rights than every role has."""
    world.execute("create role stranger_of_this_test")
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
    assert not stranger.value(
        "select has_sequence_privilege(%s, 'repository_priority_changes_id_seq', 'usage, select, update')",
        role,
    )


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
        "select workspace_priority_schema_version()",
        "select poll_background_jobs(gen_random_uuid())",
        "select find_background_job_inversions(now(), now())",
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
def test_callers_of_the_api_are_refused(database: Database, role: str, statement: str) -> None:
    with pytest.raises(Exception, match="permission denied") as refused:
        database.connect(role).execute(statement.encode())
    assert refused.value.sqlstate == "42501"


def test_tables_have_row_level_security_and_no_policies(world: World) -> None:
    rows = world.execute(
        """select c.relname, c.relrowsecurity, exists (select from pg_policy p where p.polrelid = c.oid)
           from pg_class c where c.relname = any (%s) and c.relkind = 'r' order by 1""",
        list(TABLES),
    ).fetchall()
    assert rows == [(table, True, False) for table in TABLES]


def test_functions_run_as_their_caller_with_a_search_path_of_nothing(world: World) -> None:
    rows = world.execute(
        """select p.proname, p.prosecdef, p.proconfig from pg_proc p
           where p.pronamespace = 'public'::regnamespace and p.proname <> 'set_updated_at'"""
    ).fetchall()
    assert rows
    for name, as_owner, config in rows:
        assert not as_owner, name
        assert 'search_path=""' in config, name


def test_callable_functions_bound_their_own_time(world: World) -> None:
    """PostgREST takes a function's statement_timeout for the transaction: the role's 8 s are too few."""
    readers = (
        "workspace_priority_snapshot",
        "get_workspace_repository_ids",
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


@pytest.mark.parametrize(
    ("version", "inside"),
    [
        ("20250103000800", ("decide_workspace_priorities", "lock_and_write_workspace_priorities")),
        (
            "20250103000900",
            ("sweep_workspace_priorities", "memberships_add_up", "find_mismatched_repositories_between"),
        ),
    ],
)
def test_a_role_that_may_resync_still_may_after_the_functions_were_replaced(
    world: World, version: str, inside: tuple[str, ...]
) -> None:
    """Whatever a role of the operator's own was granted on a function goes with it when it is dropped."""
    (file,) = [file for file in migration_files() if file.name.startswith(version)]
    role = f"own_{uuid.uuid4().hex}"
    world.execute(f"create role {role}")
    try:
        world.execute(
            f"""grant execute on function
                resync_workspace_priorities_page(uuid, integer, text, boolean),
                decide_workspace_priorities(uuid[], boolean, text) to {role}"""
        )
        world.connection.execute(file.read_bytes())
        for function in ("resync_workspace_priorities_page", *inside):
            allowed = "select has_function_privilege(%s, oid, 'execute') from pg_proc where proname = %s"
            assert world.value(allowed, role, function), function
    finally:
        world.execute(f"drop owned by {role}")
        world.execute(f"drop role {role}")


def test_nothing_hangs_on_workspace_repositories(database: Database) -> None:
    """A trigger there could make workspace operations fail or wait."""
    world = session(database)
    assert not world.value(
        """select count(*) from pg_trigger
           where tgrelid = 'workspace_repositories'::regclass and not tgisinternal"""
    )
