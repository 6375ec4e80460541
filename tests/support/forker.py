"""`python -m tests.support.forker FD`: imports what `priorityd` imports, and forks on request.

Imports take most of the processor time of a daemon or command that a test starts and soon ends. A fork is a
process like any other, with its own signals, descriptors, environment and end, but without the imports, and
without the other things that each process would do again: see `_prepare`. A request
comes through the socket FD as one message: what to run, as JSON, and four descriptors: for stdin, stdout,
stderr, and for the answers, which are the process id at once, and later how the process ended. The forker
ends when the other side of FD is closed. `tests.support.programs` makes the requests.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from typing import Any, Final

from priorityd.daemon.bounded_client import tls_context

ANSWER_BYTES: Final = 8
LONGEST_REQUEST: Final = 1024 * 1024
# What is imported only when it is used: by the daemon's servers and clients, and by anyio.
_LATE: Final = (
    "anyio._backends._asyncio",
    "anyio._core._signals",
    "encodings.idna",
    "httpcore",
    "uvicorn.lifespan.off",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "websockets.asyncio.client",
)
_OF_AUTHORITIES: Final = {"SSL_CERT_FILE", "SSL_CERT_DIR"}
# Importing these would have effects, or need packages that are not installed for the daemon.
_NOT_FOR_IMPORT: Final = ("priorityd.__main__", "priorityd.daemon.sandbox")


@dataclass(frozen=True)
class Request:
    """A Python module that is run as a program."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    directory: str

    def obey(self, descriptors: list[int]) -> None:
        """Become that program, like a new process, with these descriptors as its first three."""
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir(self.directory)
        os.environ.clear()
        os.environ.update(self.environment)
        time.tzset()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _open_streams()
        sys.argv = [self.module, *self.arguments]
        if _OF_AUTHORITIES & self.environment.keys():
            tls_context.cache_clear()
        gc.enable()
        runpy.run_module(self.module, run_name="__main__", alter_sys=True)


def _open_streams() -> None:
    # As Python opens them, in UTF-8.
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc] # noqa: SIM115
    sys.stdout = sys.__stdout__ = _writing(1, "strict")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _writing(2, "backslashreplace")  # type: ignore[misc]


def _writing(descriptor: int, errors: str) -> Any:
    lines = descriptor == 2 or os.isatty(descriptor)
    stream = open(descriptor, "w", encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
    stream.reconfigure(line_buffering=lines)
    return stream


class Forker:
    """Serves requests, one after the other, and reports how forked processes end."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)

    def serve(self) -> tuple[Request, list[int]] | None:
        """Return None when there can be no more requests, and in each fork the program to become."""
        with self._requests, self._selector:
            return self._serve()

    def _serve(self) -> tuple[Request, list[int]] | None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._requests:
                    self._tell_end(key)
                    continue
                message, descriptors, *_ = socket.recv_fds(self._requests, LONGEST_REQUEST, 4)
                if not message:
                    return None
                request = Request(**json.loads(message))
                if self._fork(descriptors):
                    return request, descriptors[:3]

    def _fork(self, descriptors: list[int]) -> bool:
        """Return whether this is the fork."""
        pid = os.fork()
        if pid == 0:
            return True
        *first_three, answers = descriptors
        for descriptor in first_three:
            os.close(descriptor)
        _answer(answers, pid)
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, answers))
        return False

    def _tell_end(self, key: selectors.SelectorKey) -> None:
        pid, answers = key.data
        _answer(answers, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        self._selector.unregister(key.fileobj)
        os.close(key.fd)
        os.close(answers)


def _answer(descriptor: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody waits for it
        os.write(descriptor, number.to_bytes(ANSWER_BYTES, "big", signed=True))


def _import_all() -> None:
    import priorityd

    for module in pkgutil.walk_packages(priorityd.__path__, "priorityd."):
        if not module.name.startswith(_NOT_FOR_IMPORT):
            importlib.import_module(module.name)
    for name in _LATE:
        importlib.import_module(name)


def _prepare() -> None:
    """Do what each of the short processes would do again."""
    from priorityd.core.database import answers
    from priorityd.daemon.database import rows, store
    from priorityd.daemon.status.page import render, render_busy
    from tests.support.reports import NOW, a_report

    # Each daemon is asked for the page at its end.
    render(a_report(), NOW)
    render_busy()
    tls_context()
    for module in (answers, rows):
        for kind in vars(module).values():
            if isinstance(kind, type) and is_dataclass(kind):
                store._adapter(kind)


def main() -> None:
    """Serve, and in each fork become the requested program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    _import_all()
    _prepare()
    gc.freeze()
    task = Forker(socket.socket(fileno=int(sys.argv[1]))).serve()
    if task is not None:
        request, descriptors = task
        request.obey(descriptors)


if __name__ == "__main__":
    main()
