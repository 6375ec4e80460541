"""What garbage collection of the imported modules would cost, at the start and in every full collection."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

import anyio.to_thread

from tests.benchmarks.figures import at_most, spread

ROUNDS: Final = 10
_START: Final = """
import gc, json, sys, time
frozen = "frozen" in sys.argv
if frozen:
    gc.disable()
began = time.perf_counter()
import priorityd.daemon.cli.run
took = time.perf_counter() - began
if frozen:
    gc.freeze()
    gc.enable()
began = time.perf_counter()
gc.collect()
print(json.dumps([took, (time.perf_counter() - began) * 1000]))
"""


async def garbage() -> dict[str, Any]:
    """The imports and then a full collection, as the command does it, and as Python does by default."""
    return await anyio.to_thread.run_sync(_garbage)


def _garbage() -> dict[str, Any]:
    _start("plain")  # writes the byte code
    frozen, plain = [], []
    for _ in range(ROUNDS):
        frozen.append(_start("frozen"))
        plain.append(_start("plain"))
    return {
        "import_seconds": {"frozen": spread([s for s, _ in frozen]), "plain": spread([s for s, _ in plain])},
        "full_collection_ms": {
            "frozen": spread([ms for _, ms in frozen], 1),
            "plain": spread([ms for _, ms in plain], 1),
        },
        "bars": {"full_collection_ms": at_most(max(ms for _, ms in frozen), 5, 1)},
    }


def _start(name: str) -> tuple[float, float]:
    command = [sys.executable, "-c", _START, name]
    seconds, milliseconds = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return seconds, milliseconds
