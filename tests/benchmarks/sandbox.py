"""`python -m tests.benchmarks.sandbox DATABASE_URL`: the stand-in for Supabase in a process of its own.

So it shares the processors with what is measured, but no event loop and no interpreter lock.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from tests.support.plans import UNMETERED
from tests.support.servers import start_servers


@contextmanager
def sandbox_process(database_url: str) -> Iterator[dict[str, Any]]:
    """Run it for the length of the block; yields the settings for a daemon."""
    command = [sys.executable, "-m", "tests.benchmarks.sandbox", database_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


async def _main(database_url: str) -> None:
    async with start_servers(database_url, settings=UNMETERED) as server:
        settings: dict[str, Any] = {
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
        }
        print(json.dumps(settings), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(_main, sys.argv[1])
