"""`python -m tests.benchmarks.event_api SECONDS`: the stand-in for the event API, delayed by SECONDS."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio

from tests.support.event_api import EventApi, serve_asgi


async def _main(latency_seconds: float) -> None:
    api = EventApi()

    async def later(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(latency_seconds)
        await api(scope, receive, send)

    async with serve_asgi(later) as url:
        print(json.dumps({"url": url}), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(_main, float(sys.argv[1]))
