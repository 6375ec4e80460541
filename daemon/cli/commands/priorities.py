"""Commands about the priorities of repositories."""

from __future__ import annotations

import click

from priorityd.core.priorities import LABELS
from priorityd.daemon.cli.parameters import id_argument, json_option, repository, run_connected


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--repository",
    "repositories",
    type=repository,
    metavar="ID",
    multiple=True,
    help="Only this repository (may be repeated).",
)
@json_option
def sync(**options: object) -> None:
    """Sync the priority of every tracked repository once.

    With --dry-run the exit code is 10 if anything would change, and 0 if not.
    """
    from priorityd.daemon.cli.sync import sync_command

    run_connected(sync_command, options)


@click.command()
@id_argument
@json_option
def explain(**options: object) -> None:
    """Explain why a repository has its priority, and show the evidence."""
    from priorityd.daemon.cli.explain import explain_command

    run_connected(explain_command, options)


@click.command()
@id_argument
@click.argument("priority", type=click.Choice(LABELS), metavar="PRIORITY")
@json_option
def pin(**options: object) -> None:
    """Set a repository's manual priority, which applies while the repository is in no workspace.

    PRIORITY is high, medium or low, or critical if the application has that; no workspace lowers critical.
    """
    from priorityd.daemon.cli.operate import pin_command

    run_connected(pin_command, options)


@click.command()
@id_argument
@json_option
def unpin(**options: object) -> None:
    """Clear a repository's manual priority."""
    from priorityd.daemon.cli.operate import pin_command

    run_connected(pin_command, {**options, "priority": None})


@click.command()
@click.option("--yes", is_flag=True, help="Confirm.")
@json_option
def rollback(*, yes: bool, **options: object) -> None:
    """Remove every workspace priority: flags off, counts 0, each priority manual or medium.

    Stop the daemon first, or it will restore them. All rows change in one transaction, except those that
    are locked: if there are any, their number is printed, and the command must be repeated. If the call times
    out, the message says how to find out whether it succeeded.
    """
    if not yes:
        raise click.UsageError("This changes every workspace repository. Repeat it with --yes.")
    from priorityd.daemon.cli.operate import rollback_command

    run_connected(rollback_command, options)
