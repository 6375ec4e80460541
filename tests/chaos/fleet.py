"""The daemons of a run: started, killed by faults, and restarted; what they did unprompted is recorded."""

from __future__ import annotations

import contextlib
from collections import Counter
from signal import SIGKILL, Signals
from typing import Any, Final

from tests.support.daemon_process import Daemon, start_daemon

# Errors that faults cause: a poisoned row, a process that was stopped, a job without a report.
_EXPECTED_ERRORS = ("repository_parked", "row_refused", "stalled", "job_given_up")

LIVE_SECONDS: Final = 120.0
"""How soon after the last fault every daemon must follow the stream again."""


class Fleet:
    """Daemons by their place; each place has one as long as it is kept.

    `restarts` counts daemons killed by faults, `troubles` has what must not happen: a daemon that ends by
    itself, writes something that is not a log line, or logs an error that no fault accounts for.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._expected_to_end: set[int] = set()
        self.running: dict[int, Daemon] = {}
        self.restarts = 0
        self.troubles: Counter[str] = Counter()

    async def keep(self, place: int) -> None:
        """Keep a daemon running at this place until cancelled."""
        while True:
            try:
                await self._live(place)
            except AssertionError as error:
                self.note(f"a daemon wrote: {error}")

    async def _live(self, place: int) -> None:
        async with start_daemon(ready=False, **self._settings) as daemon:
            self.running[place] = daemon
            try:
                code = await daemon.process.wait()
                if place in self._expected_to_end:
                    self._expected_to_end.discard(place)
                    self.restarts += 1
                else:
                    self.note(f"a daemon ended with {code}: {daemon.logs[-3:]}")
            finally:
                self._look_for_errors(daemon)
                del self.running[place]

    async def kill(self, place: int) -> None:
        """Kill the daemon at this place; the next one is started at once."""
        daemon = self.running.get(place)
        if daemon is not None:
            self._expected_to_end.add(place)
            self._signal(daemon, SIGKILL)
            await daemon.process.wait()

    def signal(self, daemon: Daemon | None, number: Signals) -> None:
        """Send a signal to this daemon, if it is still there."""
        if daemon is not None:
            self._signal(daemon, number)

    def note(self, trouble: str) -> None:
        """Record something that must not have happened."""
        self.troubles[trouble[:2000]] += 1

    async def parked(self) -> set[str]:
        """The repositories that any daemon has parked."""
        return {
            row["repository_id"]
            for daemon in list(self.running.values())
            for row in (await _status(daemon)).get("queue", {}).get("parked_repositories", ())
        }

    async def all_live(self) -> bool:
        """Whether every daemon follows the stream."""
        return all([await self._is_live(daemon) for daemon in list(self.running.values())])

    async def _is_live(self, daemon: Daemon) -> bool:
        return bool((await _status(daemon)).get("listener", {}).get("state") == "live")

    def _signal(self, daemon: Daemon, number: Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            daemon.process.send_signal(number)

    def _look_for_errors(self, daemon: Daemon) -> None:
        for line in daemon.logs:
            if line.get("level") in ("error", "critical") and line["event"] not in _EXPECTED_ERRORS:
                self.note(f"a daemon logged: {line}")


async def _status(daemon: Daemon) -> dict[str, Any]:
    """What `/status` says; empty if there is no answer."""
    response = await daemon.get("/status")
    status: dict[str, Any] = response.json() if response is not None and response.is_success else {}
    return status
