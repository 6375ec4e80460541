"""`python -m tests.benchmarks.per_event`: a listener that reads and updates for every event, one by one.

This is what the original's hooks did, moved to the stream. A removal does not name its repository, so it
remembers each row that it has seen being added.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from priorityd.daemon.database.store import open_store
from tests.benchmarks.bare_client import listen


async def _main() -> None:
    changes: asyncio.Queue[Any] = asyncio.Queue()
    async with asyncio.TaskGroup() as tasks:
        handling = tasks.create_task(_handle(changes))
        await listen(lambda payload: changes.put_nowait(payload["data"]))
        handling.cancel()


async def _handle(changes: asyncio.Queue[Any]) -> None:
    repositories: dict[str, str] = {}
    async with open_store(os.environ["SUPABASE_URL"], os.environ["SUPABASE_SERVICE_ROLE_KEY"]) as store:
        while True:
            change = await changes.get()
            if change["type"] == "INSERT":
                repository = repositories[change["record"]["id"]] = change["record"]["repository_id"]
            else:
                repository = repositories.pop(change["old_record"]["id"])
            count = await store.call(object, "original_count", p_id=repository)
            await store.call(object, "original_mark", p_id=repository, p_count=count)


if __name__ == "__main__":
    asyncio.run(_main())
