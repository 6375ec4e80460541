"""Commands for setting priorityd up: migrations, the check, shell completion."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from priorityd.daemon.cli.parameters import PROGRAM, json_option


@click.command()
@click.option(
    "--into",
    "directory",
    required=True,
    metavar="DIRECTORY",
    type=click.Path(file_okay=False, path_type=Path),
    help="The project's migrations directory. It is created if its parent exists.",
)
@click.option("--check", is_flag=True, help="Write nothing; the exit code is 1 if anything is missing.")
def migrations(*, directory: Path, check: bool) -> None:
    """Add priorityd's migrations to a project, with time stamps that follow the project's own.

    \b
    priorityd migrations --into supabase/migrations && supabase db push --linked

    The first time, and after an upgrade that brings a newer set, it writes the whole set; otherwise nothing.
    Existing files stay as they are. If one of priorityd's files was edited or deleted, a message names it and
    the exit code is 1. Needs no settings and no database.
    """
    from priorityd.daemon.cli.migrations import migrations_command

    sys.exit(migrations_command(directory, check=check))


@click.command()
@json_option
def check(*, as_json: bool) -> None:
    """Test the set-up step by step, and show how to fix what is wrong."""
    from priorityd.daemon.cli.check import check_command

    sys.exit(check_command(as_json=as_json))


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash:  eval "$(priorityd completion bash)"             in ~/.bashrc
    zsh:   eval "$(priorityd completion zsh)"              in ~/.zshrc, after compinit
    fish:  priorityd completion fish > ~/.config/fish/completions/priorityd.fish
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None  # noqa: S101 - click brings all three
    program = context.find_root().command
    click.echo(complete(program, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
