"""From exec to ready, and to the end of `--help`, compared with importing the Supabase client alone."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any

import anyio
import anyio.to_thread

from tests.benchmarks.database import application
from tests.benchmarks.figures import at_most, spread
from tests.benchmarks.sandbox import sandbox_process
from tests.support.daemon_process import environment, free_port

ROUNDS = 15
REPOSITORIES = 200
_PRIORITYD = str(Path(sys.executable).with_name("priorityd"))
_POLL_SECONDS = 0.005
_LONGEST_SECONDS = 30
_STOP_SECONDS = 30


async def start() -> dict[str, Any]:
    """In turns: the import, `--help`, and a daemon up to its first 200 from /readyz."""
    return await anyio.to_thread.run_sync(_start)


def _start() -> dict[str, Any]:
    floors, helps, ready = list[float](), list[float](), list[float]()
    with application() as (url, app):
        app.add(app.workspace(), *app.repositories(REPOSITORIES)[: REPOSITORIES // 2])
        with sandbox_process(url) as settings:
            # The first run of each writes the byte code.
            for number in range(ROUNDS + 1):
                figures = (
                    _run([sys.executable, "-c", "import supabase"]),
                    _run([_PRIORITYD, "--help"]),
                    _until_ready(settings),
                )
                if number > 0:
                    for figure, figures_so_far in zip(figures, (floors, helps, ready), strict=True):
                        figures_so_far.append(figure)
    ratios = [ours / floor for ours, floor in zip(ready, floors, strict=True)]
    return {
        "repositories": REPOSITORIES,
        "ratio": spread(ratios, 2),
        "import_supabase_seconds": spread(floors),
        "ready_seconds": spread(ready),
        "help_seconds": spread(helps),
        "bars": {
            "ready_ratio": at_most(median(ratios), 1.2, 2),
            "help_seconds": at_most(median(helps), 0.25),
        },
    }


def _run(command: Sequence[str]) -> float:
    began = time.perf_counter()
    env = _writing_byte_code(os.environ)
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _writing_byte_code(env: Mapping[str, str]) -> dict[str, str]:
    """As an installation has it, whatever the shell of whoever measures forbids."""
    return {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _until_ready(settings: Mapping[str, object]) -> float:
    began = time.perf_counter()
    with daemon_process(settings):
        return time.perf_counter() - began


@contextmanager
def daemon_process(
    settings: Mapping[str, object], *, ready: bool = True, log: IO[bytes] | int = subprocess.DEVNULL
) -> Iterator[int]:
    """A daemon for the length of the block, which begins when it is ready, or at once; yields its HTTP
    port."""
    port = free_port()
    env = _writing_byte_code(environment(PRIORITYD_HTTP_PORT=port, **settings))
    began = time.perf_counter()
    with subprocess.Popen([_PRIORITYD, "run"], env=env, stderr=log) as process:
        try:
            while ready and not _is_ready(port):
                assert process.poll() is None, "the daemon has ended"
                assert time.perf_counter() - began < _LONGEST_SECONDS, "the daemon did not become ready"
                time.sleep(_POLL_SECONDS)
            yield port
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
