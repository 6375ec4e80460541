"""What the operators' commands have in common, and the shortest of them: a connection, a call, an answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final

import anyio
import click
from pydantic_core import to_jsonable_python

from priorityd.core.database.schema import missing_schema
from priorityd.core.errors import ExitCode, PriorityError, TransientError, first_of
from priorityd.core.priorities import Label
from priorityd.daemon.cli.finding import psql
from priorityd.daemon.cli.repositories import Words, find_repository
from priorityd.daemon.cli.sync import show_changes
from priorityd.daemon.database.api_key import ApiKey
from priorityd.daemon.database.rows import PinAnswer
from priorityd.daemon.database.store import Store, open_store
from priorityd.daemon.logs import configure_logs
from priorityd.daemon.settings import Settings, load_settings, proxy_passwords

_MAY_STILL_RUN: Final = (
    "{}. The rollback may still be running, and does all or nothing: as long as it runs, this shows it: "
    + psql("select now() - query_start from pg_stat_activity where query like '%rollback_workspace_p%'")
    + ". Then priorityd status tells by its counts whether it was done; to repeat it does no harm."
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
        click.echo(f"priorityd: {error}", err=True)
        exit_code = error.exit_code
    return exit_code


def _explained(error: PriorityError) -> PriorityError:
    # For a command that runs once, a function unknown after several attempts is one that is not there.
    if isinstance(error, TransientError) and error.reason == "schema_cache":
        return missing_schema()
    return error


async def _with_store(command: Command, settings: Settings, options: dict[str, Any]) -> ExitCode:
    api_key = ApiKey(settings.supabase_key.get_secret_value(), gateway_key=settings.plain_gateway_key)
    async with open_store(settings.supabase_url, api_key) as store:
        return await command(settings, store, **options)


async def pin_command(
    _: Settings, store: Store, *, repository: Words, priority: Label | None, as_json: bool
) -> ExitCode:
    """`priorityd pin` and `priorityd unpin`."""
    found = await find_repository(store, repository)
    answer = await store.set_manual_priority(found.repository_id, priority)
    if as_json:
        facts = {"repository_id": found.repository_id, "name": found.name, **asdict(answer)}
        click.echo(json.dumps(to_jsonable_python(facts)))
        return ExitCode.DONE
    show_changes([change for change in answer.changes if change.old_priority != change.new_priority])
    click.echo(f"{found.shown_as} {_pinned(answer)}")
    return ExitCode.DONE


def _pinned(answer: PinAnswer) -> str:
    old, new = answer.old_manual_priority, answer.manual_priority
    if new is None:
        return "was not pinned" if old is None else f"is no longer pinned to {old}"
    again = " already" if old == new else ""
    held = answer.workspace_repos > 0 and new in ("medium", "low")
    return f"is pinned to {new}{again}" + (", and high as long as a workspace holds it" if held else "")


async def rollback_command(_: Settings, store: Store, *, as_json: bool) -> ExitCode:
    """`priorityd rollback`."""
    try:
        answer = await store.rollback()
    except TransientError as error:
        if error.reason != "timeout":
            raise
        raise TransientError(_MAY_STILL_RUN.format(error), reason="timeout") from None
    if as_json:
        click.echo(json.dumps(to_jsonable_python(asdict(answer))))
    else:
        click.echo(f"{answer.changed} repositories rolled back")
    if answer.refused:
        click.echo(f"{answer.refused} are kept as they are by the application: {answer.refusal}", err=True)
    if answer.locked:
        click.echo(f"{answer.locked} are being changed by other transactions: roll back again", err=True)
    return ExitCode.FAILED if answer.locked or answer.refused else ExitCode.DONE
