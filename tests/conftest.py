"""Fixtures that any test may ask for; what they are made of is in `tests.support`."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path
from tempfile import gettempdir

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers

if sys.dont_write_bytecode:
    # As in many a container. Every worker would rewrite and compile all tests again, and every process that a
    # test starts would compile us.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or it was -B
    sys.dont_write_bytecode = False

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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the first worker compile all tests: in a fresh clone each of the others would do it, too."""
    if _WORKER not in (None, "gw0"):
        give_up_at = time.monotonic() + 60
        while not _COMPILED.exists() and time.monotonic() < give_up_at:
            time.sleep(0.05)
    # Nearly all that is imported and collected stays: no search for garbage finds any, then or later.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let the others begin, and meanwhile write down for all of them what Hypothesis reads in all sources."""
    if _WORKER == "gw0":
        _COMPILED.touch()
        _any_integer()


@given(integers())
@settings(max_examples=100, database=None, derandomize=True)
def _any_integer(number: int) -> None:
    """One number of twenty is a constant of some module, for which Hypothesis reads all, once."""


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    if _WORKER == "gw0":
        _COMPILED.unlink(missing_ok=True)
