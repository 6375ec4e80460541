"""The official Supabase CLI pushes what was written into a project's migrations to a plain PostgreSQL.

It installs a npm package of some 100 MB, so it is asked for by its marker.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.sql.project import LAST_FUNCTION, allow_last_function, functions, refuse_last_function, write_into
from tests.support.database import schema_sql
from tests.support.schemas import fingerprint
from tests.support.supabase_cli import over_tcp
from tests.support.world import Row, World, session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from priorityd.core.database.migrations import Kind
    from tests.support.database import Database

OTHERS = """select pid, query from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()"""
BLOCKED = f"""select pid from ({OTHERS}) o
    where cardinality(pg_blocking_pids(pid)) > 0 and query ilike 'insert into supabase_migrations.%'"""

pytestmark = [pytest.mark.supabase_cli, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Project:
    """A project's directory, the CLI in it, and the project's database."""

    directory: Path
    cli: Path
    url: str
    world: World

    @property
    def migrations(self) -> Path:
        return self.directory / "supabase" / "migrations"

    def has(self, name: str, sql: bytes) -> None:
        """The project has a migration of its own, which is not applied yet."""
        (self.migrations / f"{name}.sql").write_bytes(sql)

    def start_push(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.cli, "db", "push", "--yes", "--db-url", self.url],
            cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def push(self) -> str:
        """Push, which succeeds; what the CLI printed."""
        with self.start_push() as push:
            output, _ = push.communicate(timeout=120)
        assert push.returncode == 0, output[:2000]  # it repeats the statement that failed
        return output

    def pushed(self) -> set[str]:
        """The versions that the CLI has on record."""
        rows = self.world.execute("select version from supabase_migrations.schema_migrations")
        return {row[0] for row in rows}

    def check(self, repository: UUID) -> None:
        """All of it is applied, and works for a repository that was in a workspace before."""
        assert self.pushed() == {file.name.partition("_")[0] for file in self.migrations.iterdir()}
        assert self.world.row(repository) == Row("high", True, 1)
        assert self.world.sweep()["changed"] == 0
        assert any(name == LAST_FUNCTION for name, _, _ in functions(self.world))


@contextmanager
def held(database: Database, table: str) -> Iterator[None]:
    """A lock on a table that others' reading does not feel."""
    with psycopg.connect(database.url) as blocker:
        blocker.execute(f"lock table {table} in share mode".encode())
        yield


def in_a_workspace(world: World) -> UUID:
    repository = world.tracked()
    world.add(repository)
    return repository


@pytest.fixture
def project(empty_database: Database, supabase_cli: Path, tmp_path: Path) -> Iterator[Project]:
    """A project without migrations on an empty database with Supabase's roles."""
    world = session(empty_database)
    world.connection.execute(schema_sql("roles"))
    with over_tcp(empty_database.url) as url:
        project = Project(tmp_path, supabase_cli, url, world)
        project.migrations.mkdir(parents=True)
        yield project


@pytest.fixture
def live_project(project: Project) -> tuple[Project, UUID]:
    """A project whose own migration is pushed, with a repository in a workspace."""
    project.has("20240601120000_application", schema_sql("application"))
    project.push()
    return project, in_a_workspace(project.world)


@pytest.mark.parametrize("newest", ["20250103000000", "20260101000000", "29991231235959"])
def test_pushed_after_the_project_s_own_migrations_whatever_their_versions(
    live_project: tuple[Project, UUID], newest: str
) -> None:
    project, repository = live_project
    project.has(f"{newest}_add_something", b"create table public.something ();")
    project.push()

    write_into(project.migrations)
    project.push()

    project.check(repository)
    assert "up to date" in project.push()


def test_an_empty_database_is_made_from_the_first_migration_on(project: Project) -> None:
    """As for `db reset`, a preview branch or CI."""
    project.has("20240601120000_application", schema_sql("application"))
    project.has("20250103000000_add_something", b"create table public.something ();")
    write_into(project.migrations)
    project.push()
    repository = in_a_workspace(project.world)
    project.world.sync(repository)
    project.check(repository)


def test_needs_none_of_supabase_s_roles(empty_database: Database, supabase_cli: Path, tmp_path: Path) -> None:
    world = session(empty_database)
    world.connection.execute(schema_sql("application"))
    repository = in_a_workspace(world)
    with over_tcp(empty_database.url) as url:
        project = Project(tmp_path, supabase_cli, url, world)
        project.migrations.mkdir(parents=True)
        write_into(project.migrations)
        project.push()
        project.check(repository)


def test_a_push_that_fails_halfway_goes_on_where_it_stopped(live_project: tuple[Project, UUID]) -> None:
    project, repository = live_project
    written = write_into(project.migrations)
    refuse_last_function(project.world)
    with project.start_push() as push:
        output, _ = push.communicate(timeout=120)
    assert push.returncode != 0
    assert "refused for a test" in output
    stamps = {kind: file.name.partition("_")[0] for kind, file in written.items()}
    assert stamps["tables"] in project.pushed()
    assert stamps["functions"] not in project.pushed()
    allow_last_function(project.world)

    project.push()

    project.check(repository)


@pytest.mark.parametrize("kind", ["tables", "functions"])
def test_a_push_that_is_interrupted_leaves_all_or_nothing_of_a_file(
    live_project: tuple[Project, UUID], empty_database: Database, kind: Kind
) -> None:
    project, repository = live_project
    world = project.world
    written = write_into(project.migrations)
    if kind == "functions":
        aside = written[kind].rename(project.directory / "aside.sql")
        project.push()
        aside.rename(written[kind])
    version = written[kind].name.partition("_")[0]
    before = fingerprint(world), functions(world)

    # The last statement is the CLI's own, its entry: meanwhile all others are done and not committed.
    with held(empty_database, "supabase_migrations.schema_migrations"):
        with project.start_push() as push:
            world.wait_for(f"select exists ({BLOCKED})")
            world.execute(f"select pg_terminate_backend(pid) from ({BLOCKED}) b")
            push.communicate(timeout=120)
        assert push.returncode != 0
        assert version not in project.pushed()
        assert (fingerprint(world), functions(world)) == before

        with project.start_push() as push:
            world.wait_for(f"select exists ({BLOCKED})")
            os.killpg(push.pid, signal.SIGKILL)
    # The server may have been told everything by then, and finish it.
    world.wait_for(f"select not exists ({OTHERS})")
    assert ((fingerprint(world), functions(world)) == before) is (version not in project.pushed())

    project.push()

    project.check(repository)


def test_a_set_older_than_what_is_installed_changes_nothing(live_project: tuple[Project, UUID]) -> None:
    project, repository = live_project
    write_into(project.migrations)
    project.push()
    project.world.execute("update priorityd.migrations set set_number = set_number + 1")
    before = fingerprint(project.world), functions(project.world)

    for file in sorted(project.migrations.glob("*_priorityd_*")):
        stamp, _, name = file.name.partition("_")
        shutil.copy(file, file.with_name(f"{int(stamp) + 10**10}_{name}"))
    project.push()

    assert (fingerprint(project.world), functions(project.world)) == before
    project.check(repository)
