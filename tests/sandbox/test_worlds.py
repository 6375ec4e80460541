"""The worlds of the sandbox: each has its reason, is made once, and is known again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psycopg
import pytest

from priorityd.daemon.sandbox.migrate import as_owner
from priorityd.daemon.sandbox.seed import InstallationRefusedError, prepare_database
from priorityd.daemon.sandbox.worlds import WORLDS, OtherWorldError, build, held_by, reason
from tests.support.database import Database, schema_sql
from tests.support.sandbox_command import command, running


@pytest.mark.parametrize("world", WORLDS)
def test_each_says_why_it_is_there_and_is_made_once(empty_database: Database, world: str) -> None:
    assert len(reason(world).split()) > 10
    assert reason(world).endswith(".")
    connection = empty_database.connect()
    connection.execute(schema_sql("roles"))
    assert held_by(connection) is None
    for _ in range(2):
        build(connection, world)
        assert held_by(connection) == world
    other = next(each for each in WORLDS if each != world)
    with pytest.raises(OtherWorldError, match=world):
        build(connection, other)


def test_the_migrations_are_applied_by_the_owner_of_the_tables(empty_database: Database) -> None:
    connection = empty_database.connect()
    connection.execute(schema_sql("roles"))
    build(connection, "owner")
    with as_owner(connection):
        assert connection.execute("select current_user").fetchone() == ("project_owner",)
    assert connection.execute("select current_user = session_user").fetchone() == (True,)


def test_a_world_that_the_migrations_refuse_is_refused_with_what_to_do(empty_database: Database) -> None:
    with pytest.raises(
        InstallationRefusedError, match=r"project_member, .* – Apply it as a role with BYPASSRLS"
    ):
        prepare_database(
            empty_database.url, world="policies_hidden", with_demo_data=False, step=lambda _: None
        )


@pytest.mark.parametrize("world", ["strict", "loose", "words_names"])
def test_demo_data_fits_in(empty_database: Database, world: str) -> None:
    steps: list[str] = []
    prepare_database(empty_database.url, world=world, with_demo_data=True, step=steps.append)
    assert f"World {world}: {reason(world)}" in steps
    connection = empty_database.connect()
    assert connection.execute("select count(*) from tracked_repositories").fetchone() == (48,)


@pytest.mark.situations
def test_the_command_starts_a_world_and_knows_it_again() -> None:
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        Path(name).chmod(0o755)
        options = ("--no-daemon", "--empty", "--data-dir", f"{name}/data")
        for _ in range(2):
            with (
                running(*options, "--world", "strict") as sandbox,
                psycopg.connect(sandbox.facts()["database_url"]) as session,
            ):
                assert session.execute("select count(*) from users").fetchone() == (1,)
        done = command(*options)
        assert done.returncode == 1
        assert "the data directory holds the world strict" in done.stderr


def test_the_command_says_why_a_world_is_refused_and_which_there_are() -> None:
    done = command("--no-daemon", "--world", "policies_hidden")
    assert done.returncode == 1
    assert "the migrations can't be applied to this world: row level security may hide rows" in done.stderr
    done = command("--world", "nowhere")
    assert done.returncode == 2
    assert "words_bigint" in done.stderr
