"""A stand-in for the side of systemd that services talk to (sd_notify(3))."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ServiceManager:
    """What a service has sent: each message is one datagram, as its fields by name."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.messages: list[dict[str, str]] = []

    def told(self, field: str, value: str = "1") -> list[dict[str, str]]:
        """The messages in which this field begins with this value, in order."""
        return [message for message in self.messages if message.get(field, "").startswith(value)]

    def listen(self) -> None:
        while datagram := self._listening.recv(4096):
            lines = datagram.decode().splitlines()
            self.messages.append(dict(line.split("=", 1) for line in lines))


@contextmanager
def service_manager(address: str) -> Iterator[ServiceManager]:
    """Listen at this address, as in $NOTIFY_SOCKET, for the length of the block.

    In a thread: the kernel keeps ten unread datagrams, and then the service can't send more.
    """
    address = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        manager = ServiceManager(listening)
        thread = threading.Thread(target=manager.listen)
        thread.start()
        try:
            yield manager
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", address)
            thread.join()
