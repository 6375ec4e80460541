"""`priorityd` as a process of its own for each call, without the time that its imports take.

A process that has imported them waits on a socket, and forks for each call: the child gets its arguments, its
environment and its directory as any other would. `python -m tests.checks.forks SOCKET` is that process.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio

from tests.support.programs import PYTHON
from tests.support.repository import ROOT

Answer = tuple[int, str, str]


@contextmanager
def priorityd_forks() -> Iterator[Path]:
    """The socket of such a process, for the length of the block."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "socket"
        command = [*PYTHON, "-m", "tests.checks.forks", str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                yield path
            finally:
                process.kill()


async def call(path: Path, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path) -> Answer:
    """Run `priorityd` to its end: exit code, stdout, stderr."""
    request = {"arguments": list(arguments), "environment": dict(environment), "cwd": str(cwd)}
    async with await anyio.connect_unix(path) as stream:
        await stream.send(json.dumps(request).encode() + b"\n")
        answer = b"".join([piece async for piece in stream])
    code, out, err = json.loads(answer)
    return code, out, err


def _serve(path: str) -> None:
    import priorityd.daemon.cli.check  # noqa: F401 - what it needs stays in memory, for all children
    from priorityd.daemon.cli import main

    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(connection, main)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket, main: object) -> None:
    request = json.loads(connection.makefile().readline())
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["cwd"])
            sys.argv = ["priorityd", *request["arguments"]]
            os._exit(_run(main))
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        connection.sendall(json.dumps([os.waitstatus_to_exitcode(status), *texts]).encode())


def _run(main: object) -> int:
    import traceback

    try:
        main()  # type: ignore[operator]
        code: object = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code) if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    _serve(sys.argv[1])
