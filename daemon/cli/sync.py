"""`priorityd sync`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import click

from priorityd.core.call_size import CallSize
from priorityd.core.database.answers import PriorityUpdate, RefusedRow, SyncAnswer, SyncResult
from priorityd.core.database.schema import demand_version
from priorityd.core.errors import ExitCode, PriorityError, TransientError
from priorityd.core.library.workspace_priority_sync import WorkspacePrioritySync
from priorityd.daemon.cli.meter import Meter, meter
from priorityd.daemon.cli.output import print_json, say
from priorityd.daemon.cli.repositories import IdOrName, find_repositories
from priorityd.daemon.clock import monotonic
from priorityd.daemon.database.rows import FoundRepository
from priorityd.daemon.database.store import Store
from priorityd.daemon.settings import Settings

_FIRST_BATCH_SIZE: Final = 100
_AIM_SECONDS: Final = 1.0
_MOST_NAMED: Final = 10
_COLOURS = {"critical": "magenta", "high": "green", "medium": "yellow", "low": "red"}


async def sync_command(
    settings: Settings, store: Store, *, dry_run: bool, repositories: Sequence[IdOrName], as_json: bool
) -> ExitCode:
    """Sync all repositories, or those named; with `dry_run`, report what that would change.

    An error after the first call ends it, with a report of what was done before.
    """
    report, stopped_by = _Report(dry_run=dry_run, as_json=as_json, some=bool(repositories)), None
    try:
        demand_version(await store.schema_version())
        if repositories:
            await _sync_some(settings, store, await find_repositories(store, repositories), report)
        else:
            await _sync_all(store, report)
    except PriorityError as error:
        may_pass = isinstance(error, TransientError) and error.reason != "schema_cache"
        if not report.begun and not (as_json and may_pass):
            raise
        report.result.fail(str(error), unavailable=may_pass)
        stopped_by = error
    report.end()
    return stopped_by.exit_code if stopped_by else _exit_code(report.result, dry_run=dry_run)


def _exit_code(result: SyncResult, *, dry_run: bool) -> ExitCode:
    if result.unavailable:
        return ExitCode.UNAVAILABLE
    if result.errors or result.refused:
        return ExitCode.FAILED
    return ExitCode.DIFFERENT if dry_run and result.priority_changes else ExitCode.DONE


async def _sync_all(store: Store, report: _Report) -> None:
    service = WorkspacePrioritySync(store, monotonic)
    with meter("Looking at repositories", None if report.as_json else await _tracked(store)) as progress:
        report.progress = progress
        report.result = await service.sync_all_priorities(dry_run=report.dry_run, on_answer=report.take)


async def _tracked(store: Store) -> int:
    return sum(group.count for group in (await store.snapshot()).repositories)


async def _sync_some(
    settings: Settings, store: Store, chosen: Sequence[FoundRepository], report: _Report
) -> None:
    for each in chosen:
        if not each.tracked:
            report.result.fail(f"{each.shown_as} is not tracked: it has no row in tracked_repositories")
    left = [each.repository_id for each in chosen]
    size = CallSize(min(_FIRST_BATCH_SIZE, settings.batch_size), settings.batch_size, _AIM_SECONDS)
    while left:
        batch = left[: size.rows]
        try:
            answer = await store.sync(batch, "manual", dry_run=report.dry_run)
        except TransientError as error:
            if error.reason == "timeout" and size.timed_out(len(batch)):
                continue
            raise
        size.answered(len(batch), answer.database_seconds)
        report.take(answer)
        left = left[len(batch) :]


@dataclass
class _Report:
    """What was done, for people or as JSON. `some`: only the repositories named.

    `begun`: something may have changed. `result` has what was done so far.
    """

    dry_run: bool
    as_json: bool
    some: bool
    progress: Meter | None = None
    begun: bool = False
    result: SyncResult = field(default_factory=SyncResult)
    changes: list[PriorityUpdate] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    started_at: float = field(default_factory=monotonic)

    @property
    def _shows_changes(self) -> bool:
        return self.dry_run or self.some

    def take(self, answer: SyncAnswer) -> None:
        """Add the answer of a call, and show its changes to people, if requested."""
        self.begun = True
        self.result.add(answer)
        if self.as_json:
            self.changes.extend(answer.changes)
            return
        if self._shows_changes and answer.changes:
            if self.progress:
                self.progress.before_output()
            show_changes(answer.changes)
        self.kinds.update(_kind(change) for change in answer.changes)
        if self.progress:
            self.progress.advance(answer.examined)

    def end(self) -> None:
        """Print it: how many changes there were of each kind, and in all."""
        result = self.result
        if self.as_json:
            changes = [asdict(change) for change in self.changes]
            print_json({**asdict(result), "dry_run": self.dry_run, "changes": changes})
            return
        if self._shows_changes:
            for kind, number in self.kinds.most_common():
                click.echo(f"{number:>10}  {kind}")
        verb = "would change" if self.dry_run else "changed"
        click.echo(
            f"{result.priority_changes} of {result.examined} {verb}: "
            f"{result.workspace_repos} in workspaces, {result.tracked_only_repos} tracked only, "
            f"{result.untracked} in workspaces but untracked ({monotonic() - self.started_at:.1f} s)"
        )
        for message in (*refusals(result.refused), *result.errors):
            say(message)


def refusals(rows: Sequence[RefusedRow], total: int = 0) -> Iterator[str]:
    """Each refused row by name, up to a limit for each reason; `rows` may be a part of `total`."""
    by_reason: dict[str, list[RefusedRow]] = {}
    for row in rows:
        by_reason.setdefault(row.reason, []).append(row)
    for reason, refused in by_reason.items():
        for row in refused[:_MOST_NAMED]:
            yield f"{row.shown_as}: {reason}"
        if len(refused) > _MOST_NAMED:
            yield f"{len(refused) - _MOST_NAMED} more: {reason}"
    if total > len(rows):
        yield f"and {total - len(rows)} more"


def show_changes(changes: Sequence[PriorityUpdate]) -> None:
    """One line for each change: the old priority, the new one, and the number of workspaces."""
    for change in changes:
        old, new = change.old_priority or "none", change.new_priority
        arrow = f"{old} → {click.style(new, fg=_COLOURS.get(new))}" if old != new else f"{old} as before"
        click.echo(f"{change.shown_as}  {arrow}  {_where(change)}")


def _where(change: PriorityUpdate) -> str:
    if not change.is_workspace_repo:
        return "in no workspace"
    return "in 1 workspace" if change.workspace_count == 1 else f"in {change.workspace_count} workspaces"


def _kind(change: PriorityUpdate) -> str:
    if change.old_priority == change.new_priority:
        return f"{change.new_priority} as before, with a different flag or workspace count"
    return f"{change.old_priority or 'none'} → {change.new_priority}"
