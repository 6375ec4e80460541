"""A pseudo-terminal: what a program draws on it, and a shell to type into."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.support.patience import PATIENCE_SECONDS

_ROWS, _COLUMNS = 50, 200


@contextmanager
def terminal() -> Iterator[tuple[Callable[[], str], int]]:
    """The terminal's output so far, and the descriptor that a program uses as its terminal."""
    screen, tty = pty.openpty()
    termios.tcsetwinsize(tty, (_ROWS, _COLUMNS))
    drawn = bytearray()

    def read() -> str:
        while select.select([screen], [], [], 0)[0]:
            with contextlib.suppress(OSError):
                drawn.extend(os.read(screen, 65536))
        return drawn.decode(errors="replace")

    try:
        yield read, tty
    finally:
        os.close(tty)
        os.close(screen)


class Shell:
    """An interactive shell."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._drawn = ""

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._master, text.encode())

    def expect(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until the pattern has been drawn, and discard the output up to its end."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self._drawn)) is None:
            ready = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"{pattern!r} was not drawn: {self._drawn!r}"
            self._drawn += os.read(self._master, 65536).decode(errors="replace")
        self._drawn = self._drawn[found.end() :]
        return found[0]


@contextmanager
def shell(command: Sequence[str], env: Mapping[str, str]) -> Iterator[Shell]:
    """A shell on a terminal of its own for the length of the block."""
    master, tty = pty.openpty()
    termios.tcsetwinsize(tty, (_ROWS, _COLUMNS))
    # A session with this terminal, as job control needs it.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], stdin=tty, stdout=tty, stderr=tty, env=env
    )
    os.close(tty)
    try:
        yield Shell(master)
    finally:
        os.close(master)
        process.terminate()
        process.wait(PATIENCE_SECONDS)
