"""`python -m tests.benchmarks.latency_floor`: the latency that no daemon can beat.

The `realtime` package alone, and after each change one call that does nothing, over the same client as the
daemon's. Reads the daemon's settings; prints a line when it is subscribed, then one for each change.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from postgrest import AsyncPostgrestClient
from realtime import AsyncRealtimeClient
from realtime.types import RealtimePostgresChangesListenEvent as ListenEvent

from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.rest_client import open_http
from priorityd.daemon.settings import load_settings

NO_OP = "benchmark_no_op"

Change = tuple[float, str, str]


async def _main() -> None:
    settings = load_settings()
    url, key = settings.supabase_url, settings.supabase_key.get_secret_value()
    changes: asyncio.Queue[Change] = asyncio.Queue()
    async with open_http(ApiKey(key)) as http:
        rest = AsyncPostgrestClient(f"{url}/rest/v1", http_client=http, retry_enabled=False)
        await rest.rpc(NO_OP, {}).execute()
        realtime = AsyncRealtimeClient(f"{url}/realtime/v1", token=key, auto_reconnect=False)
        await _subscribe(realtime, changes)
        while True:
            arrived_at, operation, row_id = await changes.get()
            began = time.perf_counter()
            await rest.rpc(NO_OP, {}).execute()
            called = time.perf_counter() - began
            print(json.dumps([operation, row_id, arrived_at, called]), flush=True)


async def _subscribe(realtime: AsyncRealtimeClient, changes: asyncio.Queue[Change]) -> None:
    def take(payload: Any) -> None:
        # The clock of the database, which is on this machine.
        arrived_at, data = time.time(), payload["data"]
        changes.put_nowait((arrived_at, data["type"], (data.get("record") or data["old_record"])["id"]))

    def say(payload: Any) -> None:
        if payload.extension == "postgres_changes":
            print(json.dumps("subscribed"), flush=True)

    await realtime.connect()
    channel = realtime.channel("bare")
    channel.on_postgres_changes(ListenEvent.All, take, table="workspace_repositories", schema="public")
    channel.on_system(say)
    await channel.subscribe()


if __name__ == "__main__":
    asyncio.run(_main())
