"""`docs/transcripts.md`, typed again: each command prints what the page says it does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio.to_thread
import pytest

from tests.support.daemon_process import environment, eventually, free_port
from tests.support.database import Database, schema_sql
from tests.support.psql import PSQL
from tests.support.servers import start_servers
from tests.support.supabase_cli import over_tcp
from tests.support.transcripts import BLOCKS

APPLICATION = "20240601120000_application"

pytestmark = [pytest.mark.supabase_cli, pytest.mark.timeout(600)]


def commands(name: str) -> list[tuple[str, re.Pattern[str]]]:
    """What is typed, and what it prints."""
    typed = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", BLOCKS[name], re.MULTILINE)
    return [(command, _pattern(output)) for command, output in typed]


def _pattern(output: str) -> re.Pattern[str]:
    """A line that is `…` alone is any number of lines, within a line it is any text."""
    lines = (
        "(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n"
        for line in output.splitlines()
    )
    return re.compile("".join(lines))


class Typist:
    """A shell in the project's directory, where `supabase` knows the project that it is linked to."""

    def __init__(self, directory: Path, cli: Path, **settings: object) -> None:
        self._directory = directory
        bin_dir = directory.parent / "bin"
        bin_dir.mkdir()
        supabase = bin_dir / "supabase"
        supabase.write_text(f'#!/bin/bash\nexec {cli} "${{@/--linked/--db-url=$DATABASE_URL}}" --yes\n')
        supabase.chmod(0o755)
        path = f"{bin_dir}:{PSQL.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._env = environment(PATH=path, PRIORITYD_HTTP_PORT=free_port(), **settings)
        self._background = ExitStack()

    async def type_all(self, name: str) -> None:
        """Type a transcript; its last command is typed until it prints what it shall."""
        *before, (last, printed) = commands(name)
        with self._background:
            for command, expected in before:
                if command.endswith("&"):
                    self._background.enter_context(self._running(command.removesuffix("&")))
                else:
                    output = await self._type(command)
                    assert expected.fullmatch(output), (command, output)
            await eventually(lambda: self._prints(last, printed))

    async def _prints(self, command: str, expected: re.Pattern[str]) -> bool:
        return expected.fullmatch(await self._type(command)) is not None

    async def _type(self, command: str) -> str:
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                ["bash", "-c", command], cwd=self._directory, env=self._env, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )
        )  # fmt: skip
        return done.stdout

    @contextmanager
    def _running(self, command: str) -> Iterator[None]:
        with subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self._directory, env=self._env
        ) as process:
            try:
                yield
            finally:
                process.terminate()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The project's directory."""
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


@pytest.fixture
async def typist(empty_database: Database, supabase_cli: Path, directory: Path) -> AsyncIterator[Typist]:
    empty_database.connect().execute(schema_sql("roles"))
    with over_tcp(empty_database.url) as url:
        async with start_servers(empty_database.url) as server:
            yield Typist(
                directory,
                supabase_cli,
                DATABASE_URL=url,
                SUPABASE_URL=server.url,
                SUPABASE_SECRET_KEY=server.secret_key,
            )


def migrations(directory: Path) -> Path:
    migrations = directory / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    (migrations / f"{APPLICATION}.sql").write_bytes(schema_sql("application"))
    return migrations


async def test_an_existing_project_with_newer_migrations(
    typist: Typist, directory: Path, empty_database: Database
) -> None:
    (migrations(directory) / "20260101000000_add_something.sql").write_text(
        "create table public.something ();"
    )
    await typist._type("supabase db push --linked")
    connection = empty_database.connect()
    connection.execute("insert into repositories (owner, name) values ('acme', 'api'), ('acme', 'web')")
    connection.execute("insert into tracked_repositories (repository_id) select id from repositories")
    connection.execute("insert into workspaces (name, slug) values ('Acme', 'acme')")
    connection.execute(
        """insert into workspace_repositories (workspace_id, repository_id)
           select w.id, r.id from workspaces w, repositories r where r.name = 'api'"""
    )

    await typist.type_all("existing")


async def test_an_empty_project(typist: Typist, directory: Path) -> None:
    (directory / "application.sql").write_text(BLOCKS["application"])
    await typist.type_all("empty")


async def test_a_preview_branch(typist: Typist, directory: Path) -> None:
    migrations(directory)
    await typist._type("supabase init; priorityd migrations --into supabase/migrations")
    seed = "\n".join(BLOCKS["preview"].splitlines()[1:5])
    (directory / "supabase" / "seed.sql").write_text(f"{seed}\n")
    await typist.type_all("preview")
