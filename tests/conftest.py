"""Fixtures that any test may ask for; what they are made of is in `tests.support`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import pytest

if sys.dont_write_bytecode:
    # As in many a container. Every worker would rewrite and compile all tests again, and every process that a
    # test starts would compile us. Kept aside it leaves nothing among the sources.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or it was -B
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

pytest.register_assert_rewrite("tests.support")

pytest_plugins = [
    "tests.support.database",
    "tests.support.inngest",
    "tests.support.logs",
    "tests.support.parts",
    "tests.support.programs",
    "tests.support.stack",
    "tests.support.supabase_cli",
]

# A shell that starts the tests in the background has them, and what they start, ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no search for garbage need look at it again."""
    gc.collect()
    gc.freeze()
