"""The operators' commands: one connection, a few calls, an answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

import anyio
import click
import httpx
from pydantic_core import to_jsonable_python

from core.answers import PriorityUpdate, SyncAnswer, SyncResult
from core.errors import ExitCode, PriorityError, TransientError
from core.priorities import DEFAULT_PRIORITY, Priority
from core.schema import missing_schema
from core.workspace_priority_sync import WorkspacePrioritySync
from daemon.cli.jobs import show_counts
from daemon.cli.run import first_of
from daemon.clock import monotonic
from daemon.logs import configure_logs
from daemon.ordered_jobs import count_jobs
from daemon.rows import Explanation
from daemon.settings import Settings, load_settings
from daemon.store import Store, open_store

Command = Callable[..., Awaitable[ExitCode]]


def operate(command: Command, options: dict[str, Any]) -> int:
    """Run a command with settings and a store; errors become words on stderr and an exit code."""
    settings = load_settings()
    configure_logs("auto", "error", settings.secrets)
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
    key = settings.supabase_key.get_secret_value()
    async with open_store(settings.supabase_url, key) as store:
        return await command(settings, store, **options)


async def sync_command(
    settings: Settings, store: Store, *, dry_run: bool, repository: Sequence[UUID], as_json: bool
) -> ExitCode:
    """`priorityd sync`."""
    await store.schema_version()
    show = _show_changes if not as_json and (dry_run or repository) else _show_nothing
    started_at = monotonic()
    if repository:
        result = SyncResult()
        for batch in _batches(repository, settings.batch_size):
            answer = await store.sync(batch, "manual", dry_run=dry_run)
            result.add(answer)
            show(answer)
    else:
        service = WorkspacePrioritySync(store, monotonic)
        result = await service.sync_all_priorities(dry_run=dry_run, on_answer=show)
    if as_json:
        click.echo(json.dumps({**asdict(result), "dry_run": dry_run}))
    else:
        _show_result(result, dry_run=dry_run, seconds=monotonic() - started_at)
    return ExitCode.FAILED if result.errors else ExitCode.DONE


def _batches(items: Sequence[UUID], size: int) -> list[Sequence[UUID]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _show_nothing(_: SyncAnswer) -> None:
    """For a machine, or for more rows than anyone would read."""


def _show_changes(answer: SyncAnswer) -> None:
    for change in answer.changes:
        _show_change(change)


def _show_change(change: PriorityUpdate) -> None:
    where = f"in {change.workspace_count} workspaces" if change.is_workspace_repo else "in no workspace"
    if change.workspace_count == 1:
        where = "in 1 workspace"
    click.echo(
        f"{change.repository_id or '(no repository)'}  "
        f"{change.old_priority or 'none'} → {change.new_priority}  {where}"
    )


def _show_result(result: SyncResult, *, dry_run: bool, seconds: float) -> None:
    verb = "would change" if dry_run else "changed"
    click.echo(
        f"{result.priority_changes} {verb} of {result.examined} looked at in {seconds:.1f} s: "
        f"{result.workspace_repos} in workspaces, {result.tracked_only_repos} tracked only, "
        f"{result.untracked} in workspaces but untracked"
    )
    for error in result.errors:
        click.echo(f"priorityd: {error}", err=True)


async def status_command(settings: Settings, store: Store, *, as_json: bool) -> ExitCode:
    """`priorityd status`."""
    snapshot = await store.snapshot()
    counted = await count_jobs(store)
    daemon = await _daemon_status(settings)
    if as_json:
        answer = {
            "snapshot": asdict(snapshot),
            "ordered_jobs": [asdict(each) for each in counted],
            "daemon": daemon,
        }
        click.echo(json.dumps(to_jsonable_python(answer)))
        return ExitCode.DONE
    for row in snapshot.repositories:
        kind = "workspace" if row.is_workspace_repo else "tracked only"
        click.echo(f"{row.count:>10}  {kind:<13} {row.priority or 'no priority'}")
    click.echo(f"{snapshot.inversions:>10}  workspace repositories that are not high")
    click.echo(f"{snapshot.untracked:>10}  repositories in a workspace without a tracked row")
    click.echo(f"{snapshot.outbox_pending:>10}  changes that wait to be announced to Inngest")
    click.echo(f"{snapshot.outbox_abandoned:>10}  changes that Inngest refused")
    show_counts(counted)
    click.echo(f"Schema: {snapshot.schema_version}")
    click.echo(_daemon_line(settings, daemon))
    return ExitCode.DONE


async def _daemon_status(settings: Settings) -> dict[str, Any] | None:
    url = f"http://{settings.http_host}:{settings.http_port}/status"
    try:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            answer: dict[str, Any] = (await client.get(url)).raise_for_status().json()
            return answer
    except (httpx.HTTPError, ValueError):
        return None


def _daemon_line(settings: Settings, daemon: dict[str, Any] | None) -> str:
    if daemon is None:
        return f"Daemon: no answer at {settings.http_host}:{settings.http_port}"
    ready = "ready" if daemon["ready"] else f"not ready ({'; '.join(daemon['not_ready_because'])})"
    return (
        f"Daemon: {ready}, stream {daemon['listener']['state']}, "
        f"{daemon['queue']['pending']} pending, {daemon['queue']['parked']} parked, "
        f"{_announcing(daemon.get('outbox', {}))}, {_releasing(daemon.get('ordered_jobs', {}))}"
    )


def _announcing(outbox: dict[str, Any]) -> str:
    if not outbox.get("dispatching"):
        return "announcing nothing"
    if outbox["last_error"]:
        return f"can't announce changes ({outbox['last_error']})"
    return f"announcing changes ({outbox['pending'] or 0} waiting)"


def _releasing(jobs: dict[str, Any]) -> str:
    if not jobs.get("releasing"):
        return "releasing no jobs"
    if jobs["held_back_because"]:
        return f"can't release jobs ({jobs['held_back_because']})"
    return "releasing jobs"


async def explain_command(_: Settings, store: Store, *, repository_id: UUID) -> ExitCode:
    """`priorityd explain`."""
    explanation = await store.explain(repository_id)
    click.echo(_reason(explanation))
    for workspace in explanation.workspaces:
        added = f", added {workspace.added_at:%Y-%m-%d %H:%M} UTC" if workspace.added_at else ""
        click.echo(f"  in workspace {workspace.name or workspace.id}{added}")
    for change in explanation.last_changes:
        click.echo(
            f"  {change['changed_at']}  {change['old_priority'] or 'none'} → {change['new_priority']}  "
            f"({change['trigger']})"
        )
    return ExitCode.DONE


def _reason(explanation: Explanation) -> str:
    row, count = explanation.tracked, len(explanation.workspaces)
    if row is None:
        held = f"{count} workspaces hold it" if count else "no workspace holds it"
        return f"Repository {explanation.repository_id} is not tracked, so it has no priority; {held}."
    pinned = f"its manual priority is {row.manual_priority}" if row.manual_priority else "it is not pinned"
    if count:
        why = f"{count} workspace{'s' if count > 1 else ''} hold{'' if count > 1 else 's'} it"
    elif row.manual_priority:
        why = f"no workspace holds it and {pinned}"
    else:
        why = f"no workspace holds it and {pinned}, which means {DEFAULT_PRIORITY}"
    text = f"Repository {explanation.repository_id} is {row.priority or 'without priority'}: {why}."
    if not explanation.correct:
        text += f" That is wrong: it should be {explanation.expected.priority}; priorityd sync mends it."
    return text


async def pin_command(
    _: Settings, store: Store, *, repository_id: UUID, priority: Priority | None
) -> ExitCode:
    """`priorityd pin` and `priorityd unpin`."""
    answer = await store.set_manual_priority(repository_id, priority)
    _show_changes(answer)
    click.echo(f"{repository_id}  " + (f"pinned at {priority}" if priority else "no longer pinned"))
    return ExitCode.DONE


async def rollback_command(_: Settings, store: Store) -> ExitCode:
    """`priorityd rollback`."""
    answer = await store.rollback()
    click.echo(f"{answer.changed} repositories rolled back")
    return ExitCode.DONE
