"""The migrations written into a project do what our files do, also with psql alone."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from priorityd.daemon.sandbox.migrate import apply_migrations
from tests.sql.project import TEXTS, allow_last_function, functions, refuse_last_function, write_into
from tests.support.database import schema_sql
from tests.support.psql import psql_command, run_psql
from tests.support.schemas import fingerprint
from tests.support.world import World, session

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.database import Database, Server

MOST_BYTES = 256 * 1024
"""The longest statement that older versions of the CLI read by default."""


@pytest.fixture
def application(empty_database: Database) -> World:
    """The application's tables, and nothing of ours."""
    world = session(empty_database)
    world.connection.execute(schema_sql("roles"))
    world.connection.execute(schema_sql("application"))
    return world


def psql(database: Database, file: Path) -> subprocess.CompletedProcess[str]:
    command = [*psql_command(database.url, file), "-v", "ON_ERROR_STOP=1"]
    return subprocess.run(command, capture_output=True, check=False, text=True)


def test_psql_applies_them_like_the_files_themselves_twice(
    server: Server, application: World, empty_database: Database, tmp_path: Path
) -> None:
    with server.database() as another:
        itself = session(another)
        itself.connection.execute(schema_sql("roles"))
        itself.connection.execute(schema_sql("application"))
        apply_migrations(itself.connection)
        expected = fingerprint(itself), functions(itself)

    written = write_into(tmp_path)
    for _ in range(2):
        for file in written.values():
            run_psql(empty_database.url, file)
        assert (fingerprint(application), functions(application)) == expected


def test_functions_change_all_at_once_or_not_at_all(
    application: World, empty_database: Database, tmp_path: Path
) -> None:
    written = write_into(tmp_path)
    run_psql(empty_database.url, written["tables"])
    before = functions(application)

    refuse_last_function(application)
    failed = psql(empty_database, written["functions"])
    allow_last_function(application)

    assert failed.returncode != 0
    assert "refused for a test" in failed.stderr
    assert functions(application) == before
    run_psql(empty_database.url, written["functions"])
    assert len(functions(application)) > len(before)


def test_functions_before_their_tables_are_refused(
    application: World, empty_database: Database, tmp_path: Path
) -> None:
    before = fingerprint(application)
    assert psql(empty_database, write_into(tmp_path)["functions"]).returncode != 0
    assert fingerprint(application) == before


def test_a_set_older_than_what_is_installed_is_skipped(
    application: World, empty_database: Database, tmp_path: Path
) -> None:
    written = write_into(tmp_path)
    for file in written.values():
        run_psql(empty_database.url, file)
    application.execute("update priorityd.migrations set set_number = set_number + 1")
    before = fingerprint(application), functions(application)
    for file in written.values():
        done = psql(empty_database, file)
        assert done.returncode == 0, done.stderr
        assert "is skipped" in done.stderr
    assert (fingerprint(application), functions(application)) == before


def test_a_unit_of_functions_ends_early_only_where_a_newer_set_is_installed() -> None:
    """In one block with the others, it would end all that follow."""
    block = TEXTS["functions"].removeprefix("do $functions$").removesuffix("$functions$;\n")
    block = re.sub(r"(\$\w*\$).*?\1", "", block, flags=re.DOTALL)
    block = re.sub(r"--.*|'[^']*'", "", block)
    block, guards = re.subn(r"if not priorityd\.start_unit\([^;]*\) then\s+return;\s+end if;", "", block)
    assert guards > 0
    assert not re.search(r"\breturn\b", block)


def test_no_statement_is_too_long_for_an_old_supabase_cli() -> None:
    assert (
        max(len(block.encode()) for text in TEXTS.values() for block in text.split("\n$tables$;"))
        < MOST_BYTES
    )
