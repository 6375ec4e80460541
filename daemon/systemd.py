"""systemd's notify protocol (sd_notify(3)): datagrams of `NAME=value` lines to `$NOTIFY_SOCKET`.

Without that variable nothing is sent, so the daemon runs the same under systemd, in a container or by hand.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Final

import structlog

log = structlog.stdlib.get_logger()

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Tells the service manager what the daemon is doing."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")

    def ready(self, status: str) -> None:
        """Started, or done with a reload."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """The daemon is shutting down."""
        self._send("STOPPING=1", f"STATUS={status}")

    def watchdog(self) -> None:
        """The daemon is alive; to be called twice per `watchdog_seconds`."""
        self._send("WATCHDOG=1")

    @property
    def watchdog_seconds(self) -> float | None:
        """How long the service manager waits for a sign of life before it kills, None for no limit."""
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return None
        try:
            return int(os.environ["WATCHDOG_USEC"]) / _MICROSECONDS
        except (KeyError, ValueError):
            return None

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # A leading @ means a name in Linux's abstract socket namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify_socket:
                notify_socket.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("sd_notify_failed", error=str(error))
