"""What surrounds the commands: completion in real shells, the manual page, and how long `--help` takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from priorityd.daemon.cli.manual import manual
from tests.support.repository import ROOT
from tests.support.terminal import shell

PAGE = ROOT / "man" / "priorityd.1"
SHELLS = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(priorityd completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -D; eval "$(priorityd completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "priorityd completion fish | source"),
}


@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_completes_commands_and_options(name: str, tmp_path: Path) -> None:
    command, setup = SHELLS[name]
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(tmp_path), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    with shell(command, env) as session:
        session.type(f"{setup}; echo set'-'up\n")
        session.expect("set-up")
        session.type("priorityd chec\t")
        session.expect("priorityd check ")
        session.type("--he\t")
        session.expect("--help")
        session.type("\n")
        session.expect("Test the set-up step by step")
        session.type("priorityd completion fi\t")
        session.expect("completion fish")


def test_the_manual_page_is_in_step_with_the_help() -> None:
    assert manual() == PAGE.read_text(), "python -m priorityd.daemon.cli.manual > man/priorityd.1"


def test_the_manual_page_is_read_by_groff_without_a_warning() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tutf8", PAGE], capture_output=True, check=True, text=True
    )
    assert done.stderr == ""
    assert "a dry run found differences" in done.stdout


HEAVY = {"anyio", "asyncio", "httpx", "pydantic", "realtime", "starlette", "structlog", "supabase"}


@pytest.mark.parametrize(
    ("doing", "not_imported"),
    [
        ("from priorityd.daemon.cli import cli; cli(['sync', '--help'], standalone_mode=False)", HEAVY),
        (
            "import priorityd.daemon.cli.sync, priorityd.daemon.cli.operate",
            {"realtime", "uvicorn", "inngest"},
        ),
        ("import priorityd.daemon.cli.run, priorityd.daemon.status.status", {"inngest", "supabase"}),
    ],
    ids=["help", "a command", "a daemon without Inngest"],
)
def test_nothing_heavy_is_imported_for(doing: str, not_imported: set[str]) -> None:
    code = f"import sys; {doing}; assert not {not_imported!r} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
