"""The official Supabase CLI, from npm, and a way to connect it to the embedded server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "3.1.0"


@pytest.fixture(scope="session")
def supabase_cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@contextmanager
def over_tcp(url: str) -> Iterator[str]:
    """The same database over TCP: the CLI can't use Unix sockets, the embedded server's only ones."""
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
        with suppress(OSError):  # one of them was killed
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):  # the other direction has closed it
            sink.shutdown(socket.SHUT_WR)
