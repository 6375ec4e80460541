"""Old and new together: each daemon with the migrations of the other, as the rule in `core.schema` has it."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from core.schema import REQUIRED_MIGRATION
from daemon.sandbox.migrate import migration_files
from daemon.sandbox.server import serve_sandbox
from tests.acceptance.application import Application
from tests.acceptance.conftest import Stack, stack
from tests.acceptance.daemon_process import (
    PYTHON,
    Daemon,
    environment,
    eventually,
    free_port,
    priorityd,
    start_daemon,
)
from tests.conftest import Database, schema_sql
from tests.upgrade.contract import RELEASES, call, populate, unreadable

ROOT = Path(__file__).parents[2]
__all__ = ["stack"]  # a fixture
PREVIOUS = "2ce476e45eadf93ec5d781e3349b5217886519ba"
"""The commit of the release before the lease: its migrations end with 20250103000300."""
FILES = [file.name for file in migration_files()]


# The current migrations with every released daemon.


@pytest.mark.parametrize("file", sorted(RELEASES.glob("*.json")), ids=lambda file: file.stem)
def test_every_call_of_a_released_daemon_is_answered_in_words_that_it_can_read(
    file: Path, database: Database
) -> None:
    release = json.loads(file.read_text())
    assert release["migrations"] == FILES[: len(release["migrations"])], "no released migration is renamed"
    populate(database.connect())
    connection = database.connect("service_role")
    for asked in release["calls"]:
        answer = call(connection, asked["function"], asked["arguments"])
        assert list(unreadable(answer, asked["answer"])) == [], asked["function"]
    for trigger in release["triggers"]:
        connection.execute("select sync_workspace_priorities('{}', %s)", (trigger,))


@pytest.mark.parametrize(
    ("answer", "complaints"),
    [
        ({"a": 1.5, "b": [{"c": "x"}], "d": None, "more": 1}, []),
        ({"a": "1", "b": [{"c": "x"}], "d": 1}, ["answer.a is str, not number"]),
        ({"b": [{"c": "x"}], "d": None}, ["answer has no a"]),
        ({"a": 1, "b": [{}], "d": None}, ["answer.b[] has no c"]),
        ({"a": 1, "b": [], "d": None}, ["answer.b is empty"]),
        ({"a": True, "b": {}, "d": None}, ["answer.a is bool, not number", "answer.b is dict, not list"]),
    ],
)
def test_a_field_that_is_gone_or_has_become_something_else_is_noticed(
    answer: dict[str, Any], complaints: list[str]
) -> None:
    assert list(unreadable(answer, {"a": 1, "b": [{"c": "y"}], "d": None})) == complaints


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What makes Python run the daemon of the previous release."""
    # Whoever owns the clone: it is only read.
    command = ["git", "-c", "safe.directory=*", "-C", ROOT, "archive", PREVIOUS, "core", "daemon"]
    git = shutil.which("git")
    archive = subprocess.run(command, capture_output=True, check=False) if git else None
    if archive is None or archive.returncode != 0:
        pytest.skip("without the project's history only the recorded calls of that release are tested")
    directory = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(directory, filter="data")
    return {"PYTHONPATH": str(directory), "PYTHONSAFEPATH": "1"}


async def follows(app: Application, *daemons: Daemon) -> None:
    """Joining and leaving are applied, and a resync finds nothing left to do."""
    workspace, repository = app.workspace(), app.repository()
    app.add(workspace, repository)
    await eventually(lambda: app.row(repository)[0] == "high")
    app.remove(workspace, repository)
    await eventually(lambda: app.row(repository)[0] == "medium")
    for daemon in daemons:
        done = len(daemon.logged("resync_done", trigger="signal"))
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda d=daemon, n=done: len(d.logged("resync_done", trigger="signal")) > n)
        assert await daemon.answers("/readyz", 200)
    assert app.wrong_rows() == 0


async def test_the_previous_daemon_works_on_the_current_migrations(
    stack: Stack, previous: dict[str, str]
) -> None:
    async with stack.daemon(**previous) as old:
        assert "leader" not in await old.status(), "it is the previous one that runs"
        await follows(stack.app, old)
        assert await old.stop() == 0


async def test_the_previous_commands_work_on_the_current_migrations(
    stack: Stack, previous: dict[str, str]
) -> None:
    repository = str(stack.app.repository())
    env = environment(**stack.settings, **previous, PRIORITYD_HTTP_PORT=free_port())
    for arguments in (
        ["check"],
        ["sync"],
        ["status"],
        ["pin", repository, "low"],
        ["explain", repository],
        ["unpin", repository],
        ["rollback", "--yes"],
    ):
        done = await anyio.run_process([*PYTHON, "-m", "daemon", *arguments], env=env, check=False)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)


async def test_previous_and_current_daemon_run_beside_each_other_while_one_replaces_the_other(
    stack: Stack, previous: dict[str, str]
) -> None:
    async with stack.daemon() as new:
        async with stack.daemon(**previous) as old:
            await follows(stack.app, old, new)
            assert await old.stop() == 0
        await follows(stack.app, new)


# The current daemon with older and newer migrations.


@pytest.mark.parametrize("count", range(1, len(FILES)))
async def test_older_migrations_are_refused_naming_the_one_that_is_needed(
    empty_database: Database, count: int
) -> None:
    connection = empty_database.connect()
    for name in ("roles", "application"):
        connection.execute(schema_sql(name))
    for file in migration_files()[:count]:
        connection.execute(file.read_bytes())
    async with serve_sandbox(empty_database.url) as server:
        settings = {"SUPABASE_URL": server.url, "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key}
        code, _, err = await priorityd("sync", **settings)
        assert (code, f"{REQUIRED_MIGRATION}.sql" in err) == (76, True)
        if count == len(FILES) - 1:
            async with start_daemon(ready=False, **settings) as daemon:
                assert await daemon.process.wait() == 76
            error = daemon.logged("cannot_go_on")[0]["error"]
            assert f"at migration {FILES[count - 1].partition('_')[0]}," in error
            assert f"{REQUIRED_MIGRATION}.sql" in error


async def test_a_newer_schema_is_accepted(stack: Stack) -> None:
    stack.app.connection.execute(
        "insert into workspace_priority_migrations (version, name) values ('20990101000000', 'a later one')"
    )
    async with stack.daemon() as daemon:
        await follows(stack.app, daemon)
