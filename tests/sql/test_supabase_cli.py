"""The official Supabase CLI applies the migrations to a plain PostgreSQL.

It installs a npm package of some 100 MB, so it is asked for by its marker.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from daemon.sandbox.migrate import migrations_dir
from tests.conftest import schema_sql
from tests.sql.world import session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Database

VERSION = "3.1.0"

pytestmark = [pytest.mark.supabase_cli, pytest.mark.timeout(600)]


@contextmanager
def over_tcp(url: str) -> Iterator[str]:
    """The same database over TCP: the CLI knows no Unix sockets, and the embedded server nothing else."""
    info = psycopg.conninfo.conninfo_to_dict(url)
    host = str(info["host"])
    if not host.startswith("/"):
        yield url
        return
    target = f"{host}/.s.PGSQL.{info.get('port', 5432)}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_forward, args=(listener, target), daemon=True).start()
        database = urlsplit(url).path
        port = listener.getsockname()[1]
        yield f"postgresql://{info['user']}:none@127.0.0.1:{port}{database}?sslmode=disable"


def _forward(listener: socket.socket, target: str) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # closed at the end of the test
            return
        backend = socket.socket(socket.AF_UNIX)
        backend.connect(target)
        for source, sink in ((client, backend), (backend, client)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with source:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # the other direction has closed both
            return


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm = shutil.which("npm")
    assert npm, "npm is needed to install the Supabase CLI"
    directory = tmp_path_factory.mktemp("supabase-cli")
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", f"supabase@{VERSION}"],
        cwd=directory,
        check=True,
        timeout=300,
    )
    return directory / "node_modules" / ".bin" / "supabase"


@pytest.mark.parametrize("roles", [True, False], ids=["supabase", "plain"])
def test_db_push_applies_the_migrations(
    empty_database: Database, cli: Path, tmp_path: Path, roles: bool
) -> None:
    world = session(empty_database)
    if roles:
        world.connection.execute(schema_sql("roles"))
    world.connection.execute(schema_sql("application"))
    repository = world.tracked()
    world.add(repository)
    shutil.copytree(migrations_dir(), tmp_path / "supabase" / "migrations")

    with over_tcp(empty_database.url) as url:
        pushed = subprocess.run(
            [cli, "db", "push", "--yes", "--include-all", "--db-url", url],
            cwd=tmp_path, check=False, timeout=120, capture_output=True, text=True,
        )  # fmt: skip

    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    recorded = {row[0] for row in world.execute("select version from supabase_migrations.schema_migrations")}
    assert recorded == {row[0] for row in world.execute("select version from workspace_priority_migrations")}
    assert world.row(repository).priority == "high"
    assert world.sweep()["changed"] == 0
    assert world.call("check_workspace_priorities")["schema_version"] == max(recorded)
