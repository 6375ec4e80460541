"""The daemon as users run it: a process, with its environment, signals, log lines and endpoints."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from prometheus_client.parser import text_string_to_metric_families

from tests.support.patience import PATIENCE_SECONDS
from tests.support.programs import PYTHON, open_module, run_module
from tests.support.secrecy import look, look_at_process, secrets_in

PRIORITYD = (*PYTHON, "-m", "priorityd")
POLL_SECONDS = 0.01
_POLL_PROCESS_SECONDS = 0.03
_LONGEST_POLL_SECONDS = 0.1
_RAREST_POLL_SECONDS = 0.5
_POLLS_OF_A_WAIT = 20
ENDPOINTS = ("/metrics", "/status", "/livez", "/readyz", "/")
_LAST_LOOK_SECONDS = 2
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: by default, httpx reads all certificate authorities for each client."""


def http_client() -> httpx.AsyncClient:
    """A client for the endpoints of one process, which keeps its connection."""
    return httpx.AsyncClient(trust_env=False, verify=PLAIN, timeout=PATIENCE_SECONDS)


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]],
    seconds: float = PATIENCE_SECONDS,
    *,
    longest_pause: float = _RAREST_POLL_SECONDS,
) -> Any:
    """Wait until the condition holds, and return its result.

    A condition that is awaited asks another process, which costs both of them processor time. So the first
    pause is longer, and in a long wait the pauses grow with it, up to `longest_pause`.
    """
    began, pause = time.monotonic(), POLL_SECONDS
    while True:
        value, longest = condition(), _LONGEST_POLL_SECONDS
        if isinstance(value, Awaitable):
            value = await value
            pause = max(pause, _POLL_PROCESS_SECONDS)
            longest = max(longest, min((time.monotonic() - began) / _POLLS_OF_A_WAIT, longest_pause))
        if value:
            return value
        assert time.monotonic() < began + seconds, f"not so within {seconds} s: {condition}"
        await anyio.sleep(pause)
        pause = min(1.5 * pause, longest)


def free_port() -> int:
    """A port outside the kernel's ephemeral range: it stays free until it is used."""
    while True:
        port = random.randint(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def environment(**settings: object) -> dict[str, str]:
    """A process environment with these settings and nothing from the machine's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SUPABASE", "PRIORITYD", "INNGEST"))
    }
    return kept | {"PRIORITYD_LOG_FORMAT": "json"} | {name: str(value) for name, value in settings.items()}


@dataclass
class Daemon:
    """A running `priorityd run`."""

    process: Process
    port: int
    client: httpx.AsyncClient
    secrets: tuple[str, ...] = ()
    logs: list[dict[str, Any]] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)

    async def get(self, path: str) -> httpx.Response | None:
        """The answer of an endpoint; None while the daemon does not listen."""
        try:
            response = await self.client.get(f"http://127.0.0.1:{self.port}{path}")
        except httpx.TransportError:
            return None
        look(f"the answer of {path}", f"{response.headers}\n{response.text}", self.secrets)
        return response

    async def answers(self, path: str, status: int) -> bool:
        assert self.process.returncode is None, f"the daemon has ended: {self.logs[-3:]} {self.noise}"
        response = await self.get(path)
        return response is not None and response.status_code == status

    async def status(self) -> dict[str, Any]:
        """What `/status` says, as soon as the event loop is not too busy to answer."""
        status: dict[str, Any] = await eventually(self._status)
        return status

    async def _status(self) -> dict[str, Any] | None:
        assert self.process.returncode is None, f"the daemon has ended: {self.logs[-3:]} {self.noise}"
        response = await self.get("/status")
        return response.json() if response is not None and response.is_success else None

    async def live(self) -> bool:
        return bool((await self.status())["listener"]["state"] == "live")

    async def settled(self) -> bool:
        """Wait until the stream is live and confirmed, and the sweeps that this causes are over."""
        status = await self.status()
        confirmed, sweep = status["listener"]["confirmed"], status["sweep"]
        return bool(confirmed and sweep["last_done_at"] and not sweep["wanted"])

    async def metric(self, name: str, **labels: str) -> float:
        response = await self.get("/metrics")
        assert response is not None
        return sum(
            sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
            if sample.name == f"workspace_priority_{name}" and labels.items() <= sample.labels.items()
        )

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        return [line for line in self.logs if line["event"] == event and fields.items() <= line.items()]

    async def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = PATIENCE_SECONDS) -> int:
        self.process.send_signal(number)
        with anyio.fail_after(seconds):
            return await self.process.wait()

    async def last_look(self) -> None:
        """Check that no endpoint shows a secret at the end either, if it still answers."""
        with anyio.move_on_after(_LAST_LOOK_SECONDS, shield=True):
            for path in ENDPOINTS if self.process.returncode is None else ():
                await self.get(path)

    async def read_logs(self) -> None:
        assert self.process.stderr is not None
        rest = ""
        async for text in TextReceiveStream(self.process.stderr):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                look("a log line", line, self.secrets)
                try:
                    self.logs.append(json.loads(line))
                except ValueError:
                    self.noise.append(line)


@asynccontextmanager
async def start_daemon(
    *, ready: bool = True, module: str = "priorityd", **settings: object
) -> AsyncIterator[Daemon]:
    """Run the daemon for the length of the block; every line that it writes must be a log line."""
    port = free_port()
    env = environment(PRIORITYD_HTTP_PORT=port, **settings)
    async with (
        await open_module(module, "run", env=env) as process,
        http_client() as client,
        anyio.create_task_group() as tasks,
    ):
        daemon = Daemon(process, port, client, secrets_in(env))
        tasks.start_soon(daemon.read_logs)
        try:
            if ready:
                await eventually(lambda: daemon.answers("/readyz", 200))
                await eventually(daemon.settled)
            look_at_process(process.pid, daemon.secrets)
            yield daemon
        finally:
            await daemon.last_look()
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.wait()
    assert daemon.noise == [], "the daemon wrote something that is not a log line"
    assert daemon.logged("change_handling_failed") == []


async def priorityd(*arguments: str, **settings: object) -> tuple[int, str, str]:
    """Run a command to its end; returns exit code, stdout and stderr."""
    env = environment(**settings)
    code, out, err = await run_module("priorityd", *arguments, env=env)
    look("the output of a command", out + err, secrets_in(env))
    return code, out, err
