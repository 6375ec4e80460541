"""What surrounds the commands: completion in real shells, the manual page, and how long `--help` takes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from priorityd.core.errors import ExitCode
from priorityd.daemon.cli import cli
from priorityd.daemon.cli.manual import EXAMPLES, manual
from tests.support.daemon_process import environment
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


def test_the_manual_page_shows_defaults_as_they_are_typed() -> None:
    assert not re.search(r"Default: (\d+\.0\.\s|True|False)", PAGE.read_text().replace("\\n", " "))
    assert {"SIGNALS", "EXAMPLES"} <= set(re.findall(r"^\.SH (.*)$", PAGE.read_text(), re.MULTILINE))


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_can_be_typed(example: str) -> None:
    words = shlex.split(example.partition(" <")[0])[1:]
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context("example", words)


def commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from commands(command)


@pytest.mark.parametrize("group", [[], ["jobs"]])
def test_help_shows_whole_summaries(group: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "priorityd", *group, "--help"], capture_output=True, check=True, text=True
    )
    shown = " ".join(done.stdout.split())
    of = cli.commands[group[0]] if group else cli
    assert isinstance(of, click.Group)
    for command in of.commands.values():
        summary = " ".join((command.help or "").split("\n\n")[0].split())
        assert summary.partition(". ")[0] in shown


def test_no_help_text_speaks_of_an_id_as_of_a_uuid() -> None:
    for command in commands(cli):
        for parameter in command.params:
            if parameter.name in {"repository", "repositories"}:
                assert parameter.make_metavar(click.Context(command)) in {"ID", "[ID]..."}


def test_the_daemon_keeps_nothing_in_memory_that_it_does_not_need() -> None:
    """Nor waits for it at the start: what only paints, and the SDK that only some settings want."""
    command = [sys.executable, "-X", "importtime", "-m", "priorityd", "run"]
    done = subprocess.run(command, env=environment(), capture_output=True, check=False, text=True)
    assert done.returncode == ExitCode.CONFIGURATION
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "priorityd.daemon.app" in imported
    # An import that fails is listed, too: modules inside them tell.
    assert not {"google.protobuf", "inngest", "jinja2", "pygments.lexers._mapping", "rich.console"} & imported


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
