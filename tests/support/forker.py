"""`python -m tests.support.forker FD`: imports what `priorityd` imports, and forks on request.

Imports take most of the processor time of a daemon or command that a test starts and soon ends. A fork is a
process like any other, with its own signals, descriptors, environment and end, but without the imports, and
without the other things that each process would do again: see `_prepare`. One forker serves all workers of
a test run, who connect to its listening socket FD. A request is one message: what to run, as JSON, and four
descriptors: for stdin, stdout, stderr, and for the answers, which are the process id at once, and later how
the process ended. The forker ends when its own stdin ends. `tests.support.programs` makes the requests.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from functools import partial
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
_OF_AUTHORITIES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
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
        if any(os.environ.get(name) != self.environment.get(name) for name in _OF_AUTHORITIES):
            tls_context.cache_clear()
        os.environ.clear()
        os.environ.update(self.environment)
        time.tzset()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _open_streams()
        sys.argv = [self.module, *self.arguments]
        gc.enable()
        code: object = 0
        try:
            runpy.run_module(self.module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = 0 if end.code is None else end.code
        _end(code)


def _end(code: object) -> None:
    """End like the interpreter, which first frees what was imported: that takes longer than most commands do.

    What was left open is still reported: nothing refers to it any more.
    """
    if isinstance(code, int):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        gc.collect()
        with suppress(OSError):
            for stream in (sys.stdout, sys.stderr):
                if not stream.closed:
                    stream.flush()
            os._exit(code & 0xFF)
    sys.exit(code)  # type: ignore[arg-type]


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

    def __init__(self, listener: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self, until_end_of: int) -> tuple[Request, list[int]] | None:
        """Return None when this descriptor's data ends, and in each fork the program to become."""
        self._selector.register(until_end_of, selectors.EVENT_READ)
        with self._selector:
            try:
                return self._serve()
            finally:
                for key in self._selector.get_map().values():
                    if isinstance(key.fileobj, socket.socket):
                        key.fileobj.close()

    def _serve(self) -> tuple[Request, list[int]] | None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return None
                if (task := key.data(key.fileobj)) is not None:
                    return task

    def _accept(self, listener: socket.socket) -> None:
        self._selector.register(listener.accept()[0], selectors.EVENT_READ, self._obey)

    def _obey(self, requests: socket.socket) -> tuple[Request, list[int]] | None:
        message, descriptors, *_ = socket.recv_fds(requests, LONGEST_REQUEST, 4)
        if not message:
            self._selector.unregister(requests)
            requests.close()
            return None
        request = Request(**json.loads(message))
        return (request, descriptors[:3]) if self._fork(descriptors) else None

    def _fork(self, descriptors: list[int]) -> bool:
        """Return whether this is the fork."""
        pid = os.fork()
        if pid == 0:
            return True
        *first_three, answers = descriptors
        for descriptor in first_three:
            os.close(descriptor)
        _answer(answers, pid)
        self._selector.register(
            os.pidfd_open(pid), selectors.EVENT_READ, partial(self._tell_end, pid, answers)
        )
        return False

    def _tell_end(self, pid: int, answers: int, ended: int) -> None:
        _answer(answers, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        self._selector.unregister(ended)
        os.close(ended)
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
    store._adapter(rows.JobPage | rows.NoJobs)


def main() -> None:
    """Serve, and in each fork become the requested program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(fileno=int(sys.argv[1]))
    if sys.stdin.fileno() in select.select([listener, sys.stdin], [], [])[0]:
        return  # it was not needed
    gc.disable()
    _import_all()
    _prepare()
    gc.freeze()
    task = Forker(listener).serve(until_end_of=0)
    if task is not None:
        request, descriptors = task
        request.obey(descriptors)


if __name__ == "__main__":
    main()
