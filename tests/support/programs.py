"""Starts Python modules as programs: processes with their own environment.

With a forker (`tests.support.forker`) they are forked, which takes a tenth of the processor time; without
one, or if the environment affects the interpreter itself, they are started normally.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import anyio
import pytest
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from tests.support.forker import ANSWER_BYTES

# Warnings are errors, except one that the realtime package causes (it reads `ConnectionClosed.code`): as an
# error it would end that package's listening task.
_WARNINGS: Final = ("-W", "error", "-W", "ignore::DeprecationWarning:websockets.exceptions")
PYTHON: Final = (sys.executable, *_WARNINGS)
_TYPE: Final = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
_PATH: Final = "TESTS_FORKER"
_READ_AT_START: Final = ("LD_", "PYTHON", "MALLOC_", "GLIBC_")


class Forker:
    """A connection to the process that forks, made when it is first needed. Close it at the end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._requests: socket.socket | None = None
        self._environment = _read_at_start(os.environ)

    def can_start(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork is equivalent to a new process with this environment."""
        return _read_at_start(environment) == self._environment

    def start(self, request: Mapping[str, object], *descriptors: int) -> tuple[int, socket.socket]:
        """Fork a process with this stdin, stdout and stderr; returns its id, and what will report its end."""
        if self._requests is None:
            self._requests = socket.socket(*_TYPE)
            self._requests.connect(self._path)
        mine, theirs = socket.socketpair()
        with theirs:
            message = json.dumps(request).encode()
            socket.send_fds(self._requests, [message], [*descriptors, theirs.fileno()])
        return _number(mine.recv(ANSWER_BYTES, socket.MSG_WAITALL)), mine

    def close(self) -> None:
        if self._requests is not None:
            self._requests.close()


_forkers: list[Forker] = []


_of_the_run = ExitStack()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the process that forks for all workers of a run, before any of them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    os.environ[_PATH] = _of_the_run.enter_context(serving_forks())
    if session.config.getoption("numprocesses"):
        # Most of its imports are done while the first worker compiles the tests.
        with socket.socket(*_TYPE) as connection:
            connection.connect(os.environ[_PATH])


def pytest_sessionfinish() -> None:
    """End it."""
    _of_the_run.close()


@contextmanager
def serving_forks() -> Iterator[str]:
    """Run the process that forks for the length of the block; yields the path of its socket."""
    with TemporaryDirectory(prefix="priorityd-") as directory:
        path = str(Path(directory) / "forker")
        with socket.socket(*_TYPE) as listener:
            listener.bind(path)
            listener.listen()
            number = listener.fileno()
            command = [*PYTHON, "-m", "tests.support.forker", str(number)]
            process = subprocess.Popen(command, pass_fds=[number], stdin=subprocess.PIPE)
        # It ends when its stdin is closed.
        with process:
            yield path


@pytest.fixture(scope="session", autouse=True)
def programs_are_forked() -> Iterator[None]:
    """Fork in all tests."""
    forker = Forker(os.environ[_PATH])
    _forkers.append(forker)
    yield
    _forkers.remove(forker)
    forker.close()


async def open_module(
    module: str,
    *arguments: str,
    env: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> Process:
    """Run a module as a program; defaults are those of `subprocess`."""
    for forker in _forkers:
        if forker.can_start(env):
            return Forked(forker, module, arguments, env, (stdin, stdout, stderr))
    command = [*PYTHON, "-m", module, *arguments]
    return await anyio.open_process(command, env=env, stdin=stdin, stdout=stdout, stderr=stderr)


async def run_module(
    module: str, *arguments: str, env: Mapping[str, str], given: bytes = b""
) -> tuple[int, str, str]:
    """Run a module as a program to its end; returns exit code, stdout and stderr."""
    stdin = subprocess.PIPE if given else subprocess.DEVNULL
    async with (
        await open_module(module, *arguments, env=env, stdin=stdin) as process,
        anyio.create_task_group() as tasks,
    ):
        said: dict[str, bytes] = {}

        async def read(name: str, stream: ByteReceiveStream | None) -> None:
            assert stream is not None
            said[name] = b"".join([part async for part in stream])

        async def write(stream: ByteSendStream) -> None:
            async with stream:
                with contextlib.suppress(anyio.BrokenResourceError):
                    await stream.send(given)

        tasks.start_soon(read, "out", process.stdout)
        tasks.start_soon(read, "err", process.stderr)
        if process.stdin is not None:
            tasks.start_soon(write, process.stdin)
        code = await process.wait()
    return code, said["out"].decode(), said["err"].decode()


class Forked(Process):
    """A forked process, with the interface of anyio's processes."""

    def __init__(
        self,
        forker: Forker,
        module: str,
        arguments: tuple[str, ...],
        env: Mapping[str, str],
        streams: tuple[int, int, int],
    ) -> None:
        stdin, self._stdin = _ends_for_writing(streams[0])
        stdout, self._stdout = _ends_for_reading(streams[1])
        stderr, self._stderr = _ends_for_reading(streams[2])
        request = {
            "module": module,
            "arguments": arguments,
            "environment": dict(env),
            "directory": str(Path.cwd()),
        }
        self._pid, self._end = forker.start(request, stdin, stdout, stderr)
        for descriptor, given in zip((stdin, stdout, stderr), streams, strict=True):
            if descriptor != given:
                os.close(descriptor)
        self._code: int | None = None
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._end, lambda: self.returncode)

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def returncode(self) -> int | None:
        if not self._ended.is_set():
            with contextlib.suppress(BlockingIOError):
                answer = self._end.recv(ANSWER_BYTES, socket.MSG_DONTWAIT)
                asyncio.get_running_loop().remove_reader(self._end)
                self._end.close()
                self._ended.set()
                assert answer, "the forker has ended"
                self._code = _number(answer)
        return self._code

    @property
    def stdin(self) -> ByteSendStream | None:
        return self._stdin

    @property
    def stdout(self) -> ByteReceiveStream | None:
        return self._stdout

    @property
    def stderr(self) -> ByteReceiveStream | None:
        return self._stderr

    async def wait(self) -> int:
        await self._ended.wait()
        assert self._code is not None, "the forker has ended"
        return self._code

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self._pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        for stream in (self._stdin, self._stdout, self._stderr):
            if stream is not None:
                await stream.aclose()
        try:
            await self.wait()
        except BaseException:
            self.kill()
            with anyio.CancelScope(shield=True):
                await self.wait()
            raise


class _Reading(ByteReceiveStream):
    """The reading end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while True:
            with contextlib.suppress(BlockingIOError):
                if part := os.read(self._descriptor, max_bytes):
                    return part
                raise anyio.EndOfStream
            await anyio.wait_readable(self._descriptor)

    async def aclose(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class _Writing(ByteSendStream):
    """The writing end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def send(self, item: bytes) -> None:
        left = memoryview(item)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._descriptor)
            except BrokenPipeError as error:
                raise anyio.BrokenResourceError from error

    async def aclose(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _ends_for_writing(given: int) -> tuple[int, _Writing | None]:
    if given != subprocess.PIPE:
        return _descriptor(given), None
    theirs, ours = os.pipe()
    return theirs, _Writing(ours)


def _ends_for_reading(given: int) -> tuple[int, _Reading | None]:
    if given != subprocess.PIPE:
        return _descriptor(given), None
    ours, theirs = os.pipe()
    return theirs, _Reading(ours)


def _descriptor(given: int) -> int:
    return os.open(os.devnull, os.O_RDWR) if given == subprocess.DEVNULL else given


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


def _number(answer: bytes) -> int:
    return int.from_bytes(answer, "big", signed=True)
