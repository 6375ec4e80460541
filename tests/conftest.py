"""Fixtures that any test may ask for; what they are made of is in `tests.support`."""

from __future__ import annotations

import signal

import pytest

pytest.register_assert_rewrite("tests.support")

pytest_plugins = [
    "tests.support.database",
    "tests.support.inngest",
    "tests.support.logs",
    "tests.support.parts",
    "tests.support.stack",
    "tests.support.supabase_cli",
]

# A shell that starts the tests in the background has them, and what they start, ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
