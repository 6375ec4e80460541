"""A bug of ours that ends the daemon: it is logged like everything else, and no key is in it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.support.daemon_process import environment

_RUN = """
import sys
from priorityd.daemon.cli import run

async def with_a_bug(settings):
    raise ZeroDivisionError(f"with {settings.supabase_key.get_secret_value()}")

run.run_daemon = with_a_bug
sys.exit(run.run_daemon_command())
"""


def test_a_bug_is_one_line_of_json_without_the_key() -> None:
    settings: dict[str, Any] = {
        "SUPABASE_URL": "http://127.0.0.1:9",
        "SUPABASE_SERVICE_ROLE_KEY": "very-secret",
    }
    done = subprocess.run(
        [sys.executable, "-c", _RUN], env=environment(**settings), capture_output=True, text=True
    )
    line = json.loads(done.stderr)
    assert (done.returncode, line["event"], line["level"], line["exit_code"]) == (1, "fatal", "critical", 1)
    assert "ZeroDivisionError: with [redacted]" in line["exception"]
    assert "very-secret" not in done.stderr
