"""`priorityd` with an additional task, which measures how late the event loop resumes it.

When the daemon ends, the delays are written to the file named by $LAG_FILE: 32-bit floats, in seconds.
"""

import asyncio
import importlib
import os
from array import array
from pathlib import Path

from priorityd.core.errors import ExitCode
from priorityd.daemon import app
from priorityd.daemon.cli import main
from priorityd.daemon.settings import Settings

INTERVAL_SECONDS = 0.01


async def _watch(lags: "array[float]") -> None:
    loop = asyncio.get_running_loop()
    while True:
        due_at = loop.time() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        lags.append(max(0.0, loop.time() - due_at))


def _write(lags: "array[float]") -> None:
    Path(os.environ["LAG_FILE"]).write_bytes(lags.tobytes())


async def _run_watched(settings: Settings) -> ExitCode:
    lags = array("f")
    watching = asyncio.create_task(_watch(lags))
    try:
        return await app.run_daemon(settings)
    finally:
        watching.cancel()
        _write(lags)


if __name__ == "__main__":
    importlib.import_module("priorityd.daemon.cli.run").run_daemon = _run_watched  # type: ignore[attr-defined]
    main()
