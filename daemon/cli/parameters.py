"""What the declarations of the commands share. It imports nothing but click."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final
from uuid import UUID

import click

if TYPE_CHECKING:
    from priorityd.daemon.cli.operate import Command

PROGRAM: Final = "priorityd"


def repository(text: str) -> UUID | str:
    """The type of a parameter that names a repository: by its UUID, or by `owner/name`, looked up later.

    Raises `click.BadParameter` for anything else.
    """
    try:
        return UUID(text)
    except ValueError:
        owner, slash, name = text.partition("/")
        if owner and slash and name:
            return text
    raise click.BadParameter(f"{text!r:.80} is neither a uuid nor owner/name.")


id_argument: Final = click.argument("repository", type=repository, metavar="ID")
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class WholeSummaries(click.Group):
    """Lists its commands with their whole first sentences, however long."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Called by click."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=1_000)) for name, command in commands if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def run_connected(command: Command, options: dict[str, object]) -> None:
    """Run a command that needs the settings and a connection, and exit with its code."""
    from priorityd.daemon.cli.operate import operate

    sys.exit(operate(command, options))
