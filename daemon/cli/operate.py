"""Runs commands that need settings and a store, and holds the shortest of them: pin, unpin and rollback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final

import anyio
import click

from priorityd.core.database.schema import missing_schema
from priorityd.core.errors import ExitCode, PriorityError, TransientError, first_of
from priorityd.core.priorities import Label
from priorityd.daemon.cli.finding import psql
from priorityd.daemon.cli.output import print_json, say
from priorityd.daemon.cli.repositories import IdOrName, find_repository
from priorityd.daemon.cli.sync import refusals, show_changes
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.rows import PinAnswer
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.logs import configure_logs
from priorityd.daemon.settings import Settings, load_settings, proxy_passwords

_MAY_STILL_RUN: Final = (
    "{}. The rollback may still be running, in one transaction. This shows it while it runs: "
    + psql("select now() - query_start from pg_stat_activity where query like '%rollback_workspace_p%'")
    + ". When it has ended, the counts of priorityd status show whether it succeeded. It is safe to repeat."
)
"""A gateway may give up long before the database does."""
Command = Callable[..., Awaitable[ExitCode]]


def operate(command: Command, options: dict[str, Any]) -> int:
    """Run a command with settings and a store; errors become a message on stderr and an exit code."""
    settings = load_settings()
    configure_logs("auto", "error", (*settings.secrets, *proxy_passwords()))
    try:
        return anyio.run(_with_store, command, settings, options)
    except* PriorityError as group:
        error = _explained(first_of(group))
        say(str(error))
        exit_code = error.exit_code
    return exit_code


def _explained(error: PriorityError) -> PriorityError:
    # A command runs once: a function still unknown after several attempts does not exist.
    if isinstance(error, TransientError) and error.reason == "schema_cache":
        return missing_schema()
    return error


async def _with_store(command: Command, settings: Settings, options: dict[str, Any]) -> ExitCode:
    api_key = ApiKey(settings.supabase_key.get_secret_value(), gateway_key=settings.plain_gateway_key)
    async with open_store(settings.supabase_url, api_key) as store:
        return await command(settings, store, **options)


async def pin_command(
    _: Settings, store: Store, *, repository: IdOrName, priority: Label | None, as_json: bool
) -> ExitCode:
    """`priorityd pin` and `priorityd unpin`."""
    found = await find_repository(store, repository)
    answer = await store.set_manual_priority(found.repository_id, priority)
    if as_json:
        print_json({"repository_id": found.repository_id, "name": found.name, **asdict(answer)})
        return ExitCode.DONE
    show_changes([change for change in answer.changes if change.old_priority != change.new_priority])
    click.echo(f"{found.shown_as} {_pinned(answer)}")
    return ExitCode.DONE


def _pinned(answer: PinAnswer) -> str:
    old, new = answer.old_manual_priority, answer.manual_priority
    if new is None:
        return "was not pinned" if old is None else f"is no longer pinned to {old}"
    already = "already " if old == new else ""
    held = answer.workspace_repos > 0 and new in ("medium", "low")
    return f"is {already}pinned to {new}" + (", but high as long as a workspace holds it" if held else "")


async def rollback_command(_: Settings, store: Store, *, as_json: bool) -> ExitCode:
    """`priorityd rollback`."""
    try:
        answer = await store.rollback()
    except TransientError as error:
        if error.reason != "timeout":
            raise
        raise TransientError(_MAY_STILL_RUN.format(error), reason="timeout") from None
    if as_json:
        print_json(asdict(answer))
    else:
        repositories = "1 repository" if answer.changed == 1 else f"{answer.changed:,} repositories"
        click.echo(f"{repositories} rolled back")
    for line in refusals(answer.refused, answer.unwritten):
        say(line)
    if answer.locked:
        rows = "1 row is" if answer.locked == 1 else f"{answer.locked:,} rows are"
        click.echo(f"{rows} locked by other transactions: repeat the command", err=True)
    return ExitCode.FAILED if answer.locked or answer.unwritten else ExitCode.DONE
