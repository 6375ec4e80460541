"""`priorityd sandbox` as a subprocess."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.patience import PATIENCE_SECONDS
from tests.support.secrecy import look, look_at_process

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "priorityd", "sandbox", "--port", "0"]


class Sandbox:
    """A running command, its facts once they are out, and everything that it has started."""

    def __init__(self, process: subprocess.Popen[str], temporary: Path) -> None:
        self.process = process
        self.temporary = temporary
        self.family: list[psutil.Process] = []
        self._secrets: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """The first line."""
        facts = self.next_line()
        self._secrets = (facts["service_role_key"], facts["anon_key"])
        self.family = [
            psutil.Process(self.process.pid),
            *psutil.Process(self.process.pid).children(recursive=True),
        ]
        self.family += postgres_of(self.temporary)
        for process in self.family:
            look_at_process(process.pid, self._secrets)
        return facts

    def next_line(self) -> dict[str, Any]:
        """A line of stdout."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        look("the sandbox's events", line, self._secrets)
        value = json.loads(line)
        assert isinstance(value, dict)
        return value

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        look("the sandbox's output", out + err, self._secrets)
        return self.process.returncode

    def left_behind(self) -> list[object]:
        """Processes and files that are still there."""
        alive = [p for p in self.family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return [*alive, *self.temporary.iterdir()]


def postgres_of(directory: Path) -> list[psutil.Process]:
    # The server is not a child: pg_ctl has started and left it.
    processes = psutil.process_iter(["cmdline"])
    return [p for p in processes if any(str(directory) in part for part in p.info["cmdline"] or [])]


@contextmanager
def running(*options: str) -> Iterator[Sandbox]:
    """The command with these options and a directory for temporary files of its own."""
    # Not pytest's own: as root, PostgreSQL's user has to be able to get there, and a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        temporary = Path(name)
        temporary.chmod(0o755)
        process = subprocess.Popen(
            [*COMMAND, *options],
            env=os.environ | {"TMPDIR": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        sandbox = Sandbox(process, temporary)
        try:
            yield sandbox
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=PATIENCE_SECONDS)


def command(*options: str) -> subprocess.CompletedProcess[str]:
    """The command, which is to end by itself."""
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
