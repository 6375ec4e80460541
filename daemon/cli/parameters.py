"""What the command line reads and how it shows itself, without importing more than click."""

from __future__ import annotations

from uuid import UUID

import click


def repository(word: str) -> UUID | str:
    """A parameter's type: a repository by its id, a UUID, or by its `owner/name`, which is looked up later.

    Raises `click.BadParameter` for what is neither.
    """
    try:
        return UUID(word)
    except ValueError:
        owner, slash, name = word.partition("/")
        if owner and slash and name:
            return word
    raise click.BadParameter(f"{word!r:.80} is neither a uuid nor owner/name.")


class WholeSummaries(click.Group):
    """Lists its commands with the whole of their first sentences, however long they are."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Called by click."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=1_000)) for name, command in commands if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
