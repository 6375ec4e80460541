"""`deploy/upgrade.md`, typed as it stands on a populated database: rolled out, used, and as before again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio.to_thread
import pytest

from priorityd.daemon.migration_files import migrations_dir
from tests.support.application import Application
from tests.support.daemon_process import environment, eventually, free_port, start_daemon
from tests.support.database import Database, schema_sql
from tests.support.psql import PSQL
from tests.support.schemas import fingerprint
from tests.support.servers import start_servers
from tests.support.world import session

pytestmark = pytest.mark.migrations

RUNBOOK = Path(__file__).parents[2] / "deploy" / "upgrade.md"
_STEP = re.compile(r"<!-- (\w+) -->\n *```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
STEPS = {name: dedent(block) for name, block in _STEP.findall(RUNBOOK.read_text())}


def rows(app: Application) -> list[Any]:
    """Every tracked row, but for the column that a trigger of the application's own keeps."""
    return app.connection.execute(
        "select to_jsonb(t) - 'updated_at' from tracked_repositories t order by id"
    ).fetchall()


def populate(app: Application) -> None:
    workspaces = [app.workspace() for _ in range(3)]
    for number in range(300):
        repository = app.repository(tracked=False)
        app.track(repository, priority=("high", "medium", "low", None)[number % 4], size="small")
        for workspace in workspaces[: number % 4]:
            app.add(workspace, repository)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the operator types."""
    (tmp_path / "migrations").symlink_to(migrations_dir())
    return tmp_path


async def type_step(name: str, directory: Path, **settings: object) -> None:
    path = f"{PSQL.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = environment(**settings, PATH=path, PRIORITYD_HTTP_PORT=free_port())
    command = ["bash", "-euo", "pipefail", "-c", STEPS[name]]
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)
    )
    assert done.returncode == 0, (name, done.stdout, done.stderr)


async def test_rolled_out_used_and_rolled_back_everything_is_as_before(
    empty_database: Database, directory: Path
) -> None:
    world = session(empty_database)
    for name in ("roles", "application"):
        world.connection.execute(schema_sql(name))
    app = Application(world.connection)
    populate(app)
    schema, before = fingerprint(world), rows(app)

    async with start_servers(empty_database.url) as server:
        settings: dict[str, Any] = {
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
        }

        async def type_steps(*names: str) -> None:
            for name in names:
                await type_step(name, directory, DATABASE_URL=empty_database.url, **settings)

        await type_steps("save", "prepare", "migrate", "check", "look")
        async with start_daemon(**settings) as daemon:
            assert app.wrong_rows() == 0
            workspace, joined = app.workspace(), app.repository()
            app.add(workspace, joined)
            await eventually(lambda: app.row(joined)[0] == "high")
            assert await daemon.stop() == 0
        await type_steps("migrate")  # as in an upgrade: nothing is missing, nothing is changed
        assert app.row(joined) == ("high", True, 1)

        await type_steps("rollback")
        left = app.connection.execute(
            "select count(*) from tracked_repositories where is_workspace_repo or workspace_count <> 0"
            " or priority::text is distinct from coalesce(manual_priority::text, 'medium')"
        )
        assert left.fetchone() == (0,)
        await type_steps("undo", "restore")
    assert fingerprint(world) == schema
    app.connection.execute("delete from repositories where id = %s", (joined,))
    assert rows(app) == before


def test_every_step_is_typed() -> None:
    assert list(STEPS) == ["save", "prepare", "migrate", "check", "look", "rollback", "undo", "restore"]
