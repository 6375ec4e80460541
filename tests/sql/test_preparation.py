"""The preparation for large tables: it leaves the migrations nothing to wait for, and ends where they end."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from priorityd.daemon.migration_files import migration_files, migrations_dir
from priorityd.daemon.sandbox.migrate import apply_migrations, undo_migrations
from tests.support.database import schema_sql, superuser_beside
from tests.support.psql import psql_command, run_psql
from tests.support.schemas import Schema, fingerprint, in_schemas, use
from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database, Server

pytestmark = pytest.mark.migrations

SCRIPT = migrations_dir() / "concurrently" / "20250103000000_prepare_workspace_priority_tracking.sql"
CREATED = "select what from priorityd.created order by what"
# What a lock of these modes on a table makes wait: every writer, or everybody.
BLOCKING = """
    select l.relation::regclass::text, l.mode from pg_locks l
    where l.pid = pg_backend_pid() and l.granted
        and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        and l.relation in ('tracked_repositories'::regclass, 'workspace_repositories'::regclass)
"""


@in_schemas()
def test_ends_where_the_migrations_alone_end(empty_database: Database, schema: Schema) -> None:
    bare = session(empty_database)
    schema.create(bare.connection)
    before = fingerprint(bare)
    apply_migrations(bare.connection)
    migrated, created = fingerprint(bare), bare.execute(CREATED).fetchall()
    undo_migrations(bare.connection)

    run_psql(empty_database.url, SCRIPT)
    apply_migrations(bare.connection)
    assert (fingerprint(bare), bare.execute(CREATED).fetchall()) == (migrated, created)
    use(bare)
    undo_migrations(bare.connection)
    assert fingerprint(bare) == before


@pytest.fixture
def application(empty_database: Database) -> World:
    world = session(empty_database)
    world.connection.execute(schema_sql("roles"))
    world.connection.execute(schema_sql("application"))
    return world


def populate(world: World) -> None:
    """Every priority in no, one and two workspaces, many times; the same rows wherever it is done."""
    world.execute("insert into workspaces (id) values (%s), (%s)", UUID(int=1), UUID(int=2))
    for number in range(240):
        repository = UUID(int=1000 + number)
        world.execute("insert into repositories (id) values (%s)", repository)
        priority = ("high", "medium", "low", None)[number % 4]
        world.track(repository, id=UUID(int=5000 + number), priority=priority)
        for workspace in range(number % 3):
            world.add(repository, UUID(int=1 + workspace))


def content(world: World) -> list[Any]:
    rows = world.execute(
        "select id, repository_id, priority, is_workspace_repo, workspace_count, manual_priority"
        " from tracked_repositories order by id"
    )
    trail = world.execute(
        "select tracked_repository_id, repository_id, old_priority, new_priority, old_is_workspace_repo,"
        " is_workspace_repo, workspace_count, trigger, dispatched_at is not null"
        " from repository_priority_changes order by tracked_repository_id"
    )
    return [*rows.fetchall(), *trail.fetchall()]


def test_fills_the_columns_and_the_trail_as_the_migration_does(application: World, server: Server) -> None:
    populate(application)
    with server.database() as other:
        plain = session(other)
        plain.connection.execute(schema_sql("application"))
        populate(plain)
        apply_migrations(plain.connection)
        expected = content(plain)
    run_psql(_url(application, server), SCRIPT)
    assert content(application) == expected, "before the migration has run"
    apply_migrations(application.connection)
    assert content(application) == expected


def _url(world: World, server: Server) -> str:
    return server.url(world.connection.info.dbname)


def test_leaves_the_migrations_nothing_that_makes_the_application_wait(
    application: World, server: Server
) -> None:
    populate(application)
    run_psql(_url(application, server), SCRIPT)
    application.connection.autocommit = False
    for file in migration_files():
        application.connection.execute(file.read_bytes())
        assert application.execute(BLOCKING).fetchall() == [], file.name
        application.connection.commit()


def test_without_it_the_first_migration_locks_the_table_to_its_end(application: World) -> None:
    application.connection.autocommit = False
    application.connection.execute(migration_files()[0].read_bytes())
    assert ("tracked_repositories", "AccessExclusiveLock") in application.execute(BLOCKING).fetchall()
    application.connection.rollback()


def test_runs_again_and_mends_an_index_whose_building_was_interrupted(
    application: World, server: Server
) -> None:
    populate(application)
    run_psql(_url(application, server), SCRIPT)
    before, rows = fingerprint(application), application.everything()
    drift = "'idx_tracked_repos_priority_drift'::regclass"
    with superuser_beside(application.connection) as superuser:
        superuser.execute(f"update pg_index set indisvalid = false where indexrelid = {drift}".encode())
    run_psql(_url(application, server), SCRIPT)
    assert (fingerprint(application), application.everything()) == (before, rows)
    assert application.value("select bool_and(indisvalid) from pg_index")


def test_after_the_first_backfill_it_fills_nothing(application: World, server: Server) -> None:
    populate(application)
    apply_migrations(application.connection)
    application.add(UUID(int=1000), UUID(int=1))
    before = application.everything()
    run_psql(_url(application, server), SCRIPT)
    assert application.everything() == before


def test_autovacuum_gives_way_to_it(application: World, server: Server, empty_database: Database) -> None:
    """To a session that waits for a second: so it has to wait that long, without blocking others."""
    populate(application)
    with superuser_beside(application.connection) as superuser:
        # A vacuum that takes its time, of the kind that gives way.
        superuser.execute("alter system set autovacuum_naptime = 1")
        superuser.execute("select pg_reload_conf()")
        try:
            application.execute(
                "insert into tracked_repositories (repository_id) select null from generate_series(1, 20000)"
            )
            application.execute("delete from tracked_repositories where repository_id is null")
            application.execute(
                """alter table tracked_repositories set (
                       autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,
                       autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"""
            )
            application.wait_for(
                """select exists (
                       select from pg_stat_progress_vacuum where relid = 'tracked_repositories'::regclass)"""
            )
            run_psql(_url(application, server), SCRIPT)
        finally:
            superuser.execute("alter system reset autovacuum_naptime")
            superuser.execute("select pg_reload_conf()")
    assert application.value("select count(*) from tracked_repositories where is_workspace_repo") == 160


def test_waits_for_a_long_transaction_without_making_others_wait(
    application: World, server: Server, empty_database: Database
) -> None:
    populate(application)
    holder, other = session(empty_database, autocommit=False), session(empty_database)
    holder.execute("update tracked_repositories set size = size where id = %s", UUID(int=5000))
    other.execute("set lock_timeout = '5s'")
    with subprocess.Popen(psql_command(_url(application, server), SCRIPT), stderr=subprocess.PIPE) as psql:
        tried = "select exists (select from pg_locks where mode = 'AccessExclusiveLock' and not granted)"
        for _ in range(5):
            application.wait_for(tried)
            other.execute("update tracked_repositories set size = size where id = %s", UUID(int=5001))
        assert psql.poll() is None, "it is still trying"
        holder.connection.rollback()
        assert psql.wait(60) == 0, psql.stderr and psql.stderr.read()
    assert application.value("select count(*) from tracked_repositories where is_workspace_repo") == 160
