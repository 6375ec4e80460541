"""`python -m tests.benchmarks.send_alone`: sends a JSON array of events from stdin and prints the seconds."""

from __future__ import annotations

import gc
import json
import sys
import time

import anyio

from priorityd.core.inngest.outgoing_events import OutgoingEvent
from priorityd.daemon.inngest.sender import open_event_sender
from priorityd.daemon.settings import load_settings


async def _main() -> None:
    events = [OutgoingEvent(**event) for event in json.load(sys.stdin)]
    gc.disable()  # as the command does
    async with open_event_sender(load_settings()) as sender:
        began = time.perf_counter()
        refused = await sender.send(events)
        print(json.dumps({"seconds": time.perf_counter() - began, "refused": len(refused)}))


if __name__ == "__main__":
    anyio.run(_main)
