"""Fixtures that any test may ask for; what they are made of is in `tests.support`."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from pathlib import Path
from tempfile import gettempdir

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
    "tests.support.releases",
    "tests.support.stack",
    "tests.support.supabase_cli",
]

# A shell that starts the tests in the background has them, and what they start, ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


_WORKER = os.environ.get("PYTEST_XDIST_WORKER")
_COMPILED = Path(gettempdir()) / f"priorityd-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID')}"
"""Made by the first worker of a run when it has collected the tests, and removed when it ends."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Let the first worker compile all tests: in a fresh clone each of the others would do it, too."""
    if _WORKER in (None, "gw0"):
        return
    give_up_at = time.monotonic() + 60
    while not _COMPILED.exists() and time.monotonic() < give_up_at:
        time.sleep(0.05)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal out the tests that wait for long, so that the processors have other work meanwhile.

    Each worker begins with an equal, contiguous part of the list (`--dist=worksteal`), and takes from the
    ends of the others' parts when it is done. These tests come in the first half of each part, and not all at
    once.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    waiting = [item for item in items if item.get_closest_marker("waits")]
    others = [item for item in items if not item.get_closest_marker("waits")]
    dealt: list[pytest.Item] = []
    for worker in range(workers):
        part = others[worker * len(others) // workers : (worker + 1) * len(others) // workers]
        place = len(part) * (worker + 1) // (2 * workers)
        dealt += part[:place] + waiting[worker::workers] + part[place:]
    items[:] = dealt


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no search for garbage need look at it again."""
    if _WORKER == "gw0":
        _COMPILED.touch()
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    if _WORKER == "gw0":
        _COMPILED.unlink(missing_ok=True)
