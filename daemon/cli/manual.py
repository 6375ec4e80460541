"""Generates the manual page from the commands' help and the settings, with the macros of man(7).

`python -m priorityd.daemon.cli.manual > man/priorityd.1` writes it.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from typing import Final

import click

from priorityd.core import __version__
from priorityd.daemon.cli import cli
from priorityd.daemon.settings import Settings, shown, variable_name

_ESCAPES: Final = {"\\": "\\e", "-": "\\-"}
_WIDTH: Final = 72
_SECRETS: Final = (
    "Settings, one per file, each file named after its variable. If $CREDENTIALS_DIRECTORY (systemd's) or "
    "$PRIORITYD_SECRETS_DIR is set, that directory is read instead."
)
EXAMPLES: Final = {
    "priorityd sandbox": "Try everything on this machine.",
    "priorityd check": "Test the set-up, and show how to fix it.",
    "priorityd sync --dry-run": "Show what a sync would change; the exit code is 10 if anything would.",
    "priorityd explain acme/web": "Explain why this repository has its priority.",
    "priorityd pin acme/web low": "Set the priority that it has while it is in no workspace.",
    """priorityd queue recent-prs acme/web acme/api --data '{"days": 7}'""": "Queue a job for each.",
    "priorityd queue reviews --stdin --mode ordered < repositories.txt": "Queue a job for each repository in "
    "a file, to be released in strict order.",
    "priorityd jobs list --repository acme/web": "Show the positions of the jobs of a repository.",
    "priorityd status --json": "Print the state of everything, for a script.",
}
_SIGNALS: Final = {
    "SIGHUP": "The daemon reads the key again and starts a full resync. Several signals during one resync "
    "lead to one more resync.",
    "SIGTERM, SIGINT": "The daemon takes no more changes, finishes waiting work within "
    "PRIORITYD_DRAIN_SECONDS, releases its lease and exits with 0. A second signal ends it at once, with "
    "exit code 1 if work was left. Nothing is lost either way: the next start checks every row.",
}
_KEEP_LINES: Final = "\b"
"""How click marks a paragraph whose line breaks are kept."""


def manual() -> str:
    """The page as roff source."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    description, _, more = _help(cli).partition("\n")
    yield f'.TH PRIORITYD 1 "" "priorityd {_text(__version__)}" "priorityd"'
    yield from (".SH NAME", f"priorityd \\- {_text(description.rstrip('.').lower())}")
    yield from (".SH SYNOPSIS", ".B priorityd", f"{_text('[OPTIONS] COMMAND [ARGUMENTS]')}")
    yield from (".SH DESCRIPTION", *_paragraphs(more))
    yield ".SH COMMANDS"
    for name, command in _each(cli):
        yield from _command(name, command)
    title, _, codes = (cli.epilog or "").removeprefix(_KEEP_LINES).strip().partition("\n")
    assert title == "Exit codes:"  # noqa: S101 - the heading below stands for it
    yield ".SH EXIT STATUS"
    for line in codes.splitlines():
        code, meaning = line.split(maxsplit=1)
        yield from _tagged(code, meaning)
    yield ".SH SIGNALS"
    for signal, effect in _SIGNALS.items():
        yield from _tagged(signal, effect)
    yield from _environment()
    yield ".SH EXAMPLES"
    for example, meaning in EXAMPLES.items():
        yield from _tagged(example, meaning)


def _each(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """The commands with their full names; groups are replaced by their commands."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _each(command, f"{before}{name} ")
        else:
            yield before + name, command


def _command(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"priorityd {name}")
    yield f".SS {_text(' '.join([context.command_path, *command.collect_usage_pieces(context)]))}"
    yield from _paragraphs(_help(command))
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield from _tagged(*record)


def _environment() -> Iterator[str]:
    yield ".SH ENVIRONMENT"
    for name, field in Settings.model_fields.items():
        default = "" if field.is_required() or field.default is None else f" Default: {shown(field.default)}."
        yield from _tagged(variable_name(name), f"{field.description}{default}")
    yield ".SH FILES"
    yield from _tagged(".env", "Settings, in the working directory.")
    yield from _tagged("/run/secrets", _SECRETS)


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


def _tagged(tag: str, text: str) -> Iterator[str]:
    yield from (".TP", f".B {_text(tag)}", *_filled(text))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith(_KEEP_LINES):
            lines = paragraph.removeprefix(_KEEP_LINES).strip("\n").splitlines()
            yield from (".nf", *map(_text, lines), ".fi")
        else:
            yield from _filled(paragraph)


def _filled(text: str) -> Iterator[str]:
    return map(_text, textwrap.wrap(" ".join(text.split()), _WIDTH))


def _text(text: str) -> str:
    """Plain text escaped for roff, in ASCII."""
    escaped = "".join(
        _ESCAPES.get(character, character if character.isascii() else f"\\[u{ord(character):04X}]")
        for character in text
    )
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    click.echo(manual(), nl=False)
