"""`python -m tests.benchmarks.bare_client N`: the `realtime` package alone.

It prints a line when rows flow, then, for every N changes of memberships, the monotonic time at which the
last of them arrived. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from realtime import AsyncRealtimeClient
from realtime.types import RealtimePostgresChangesListenEvent as ListenEvent


async def listen(on_change: Callable[[Any], None]) -> None:
    """Pass on every change of a membership, and report when they begin to flow, until standard input ends."""
    key = os.environ["SUPABASE_SERVICE_ROLE_KEY"]
    client = AsyncRealtimeClient(f"{os.environ['SUPABASE_URL']}/realtime/v1", token=key)
    await client.connect()
    channel = client.channel("bare")
    channel.on_postgres_changes(ListenEvent.All, on_change, table="workspace_repositories", schema="public")
    channel.on_system(lambda payload: print("live", flush=True))
    await channel.subscribe()
    await asyncio.to_thread(sys.stdin.read)
    await client.close()


async def _main(number: int) -> None:
    arrived = 0

    def count(_: Any) -> None:
        nonlocal arrived
        arrived += 1
        if arrived % number == 0:
            print(time.monotonic(), flush=True)

    await listen(count)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
