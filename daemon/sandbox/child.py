"""The daemon as a child process of the sandbox: the real command, with the settings of a real project."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL_SECONDS = 0.1
_REQUEST_SECONDS = 2.0
# A little more than the daemon's own deadline for draining.
_STOP_SECONDS = 25.0
_LONGEST_LINE = 1024 * 1024


class DaemonProcess:
    """`priorityd run` against the sandbox; its log lines are reported as they are written."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.url = url

    @classmethod
    async def start(cls, supabase_url: str, key: str, http_port: int) -> DaemonProcess:
        """Start it; other settings from the environment apply, too."""
        environment = os.environ | {
            "SUPABASE_URL": supabase_url,
            "SUPABASE_SERVICE_ROLE_KEY": key,
            "PRIORITYD_HTTP_PORT": str(http_port),
            "PRIORITYD_LOG_FORMAT": "json",
        }
        # In its own session: Ctrl-C is for the sandbox, which stops the daemon before what it depends on.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "priorityd",
            "run",
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=_LONGEST_LINE,
        )
        return cls(process, f"http://127.0.0.1:{http_port}")

    async def follow(self, report: Callable[[dict[str, Any]], None]) -> int:
        """Report its log lines until it ends, and return its exit code."""
        lines = self._process.stdout
        while lines is not None and (line := await lines.readline()):
            report(_as_event(line.decode(errors="replace").rstrip()))
        return await self._process.wait()

    async def ready(self) -> None:
        """Return when `/readyz` says that it is ready."""
        async with httpx.AsyncClient(timeout=_REQUEST_SECONDS, trust_env=False) as http:
            while not await _answers_well(http, f"{self.url}/readyz"):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Ask it to end, and kill it after its deadline for draining."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            self._process.kill()


async def _answers_well(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.HTTPError:
        return False


def _as_event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return {"source": "daemon"} | (event if isinstance(event, dict) else {"event": "output", "line": line})
