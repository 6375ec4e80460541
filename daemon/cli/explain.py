"""`priorityd explain`: why a repository has its priority, in two sentences, and the evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from priorityd.core.errors import ExitCode
from priorityd.core.names import known_as
from priorityd.core.priorities import DEFAULT_PRIORITY
from priorityd.daemon.cli.output import listed, print_json
from priorityd.daemon.cli.repositories import IdOrName, find_repository
from priorityd.daemon.database.rows import Explanation, TrackedRow
from priorityd.daemon.database.store import Store
from priorityd.daemon.settings import Settings

_NAMED_WORKSPACES = 3


async def explain_command(_: Settings, store: Store, *, repository: IdOrName, as_json: bool) -> ExitCode:
    """Explain one repository."""
    explanation = await store.explain((await find_repository(store, repository)).repository_id)
    answer = f"{_why(explanation)} {_what_else(explanation)}"
    if as_json:
        print_json({"answer": answer, **asdict(explanation)})
        return ExitCode.DONE
    click.echo(answer)
    for line in _evidence(explanation):
        click.echo(f"  {line}")
    return ExitCode.DONE


def _why(explanation: Explanation) -> str:
    row = _relevant_row(explanation)
    if row is None:
        return f"Repository {_subject(explanation)} has no priority, because it is not tracked."
    subject = f"Repository {_subject(explanation)} is {row.priority or 'without priority'}"
    if not row.correct and row.priority == row.expected_priority:
        return f"{subject}, as it should be, but its row is not up to date."
    if not row.correct:
        return f"{subject}, which is wrong: it should be {row.expected_priority}."
    return f"{subject} because {_cause(explanation, row)}."


def _relevant_row(explanation: Explanation) -> TrackedRow | None:
    """The row to explain: the first one that is wrong, otherwise the most relevant one."""
    return next((row for row in explanation.rows if not row.correct), explanation.tracked)


def _subject(explanation: Explanation) -> str:
    return known_as(explanation.repository_id, explanation.name)


def _what_else(explanation: Explanation) -> str:
    row = _relevant_row(explanation)
    if row is None:
        return f"{_holders(explanation).capitalize()}; it gets a priority as soon as it has a tracked row."
    if not row.correct:
        cause = _cause(explanation, row)
        command = f"priorityd sync --repository {explanation.repository_id}"
        return f"{cause[:1].upper()}{cause[1:]}; to fix it now, run: {command}"
    counting = explanation.expected.workspace_count
    if counting and row.expected_priority != "high":
        return f"Workspaces don't lower it: {_holders(explanation)}."
    if counting:
        return _without_them("that workspace" if counting == 1 else "these workspaces", row)
    if row.expected_priority == "critical":
        return "Workspaces don't lower it."
    change = "stays high when" if row.expected_priority == "high" else "becomes high as soon as"
    return f"It {change} {'one of them counts' if explanation.workspaces else 'a workspace holds it'}."


def _without_them(workspaces: str, row: TrackedRow) -> str:
    if row.manual_priority is None:
        return f"Without {workspaces} it would be {DEFAULT_PRIORITY}."
    verb = "stay" if row.manual_priority == "high" else "be"
    return f"Without {workspaces} it would {verb} {row.manual_priority}: that is its manual priority."


def _cause(explanation: Explanation, row: TrackedRow) -> str:
    holders = _holders(explanation)
    counting = explanation.expected.workspace_count
    if counting and row.expected_priority != "high":
        return f"it was set to {row.expected_priority}"
    if counting:
        return holders
    if row.manual_priority:
        return f"it is pinned to {row.manual_priority}, and {holders}"
    return f"{holders} and it is not pinned"


def _holders(explanation: Explanation) -> str:
    count, counting = explanation.workspaces_in_all, explanation.expected.workspace_count
    if not count:
        return "no workspace holds it"
    names = [workspace.name or workspace.id for workspace in explanation.workspaces]
    named = listed(names, total=count, shown=_NAMED_WORKSPACES)
    counted = (
        "" if counting == count else f", {counting or 'none'} of which count{'s' if counting < 2 else ''}"
    )
    return f"{count} workspace{'s hold' if count > 1 else ' holds'} it ({named}){counted}"


def _evidence(explanation: Explanation) -> Iterator[str]:
    for row in explanation.rows:
        yield (
            f"tracked row {row.id}: priority {row.priority or 'none'}, "
            f"is_workspace_repo {_shown(row.is_workspace_repo)}, "
            f"workspace_count {_shown(row.workspace_count)}, manual priority {row.manual_priority or 'none'}"
        )
    for workspace in explanation.workspaces:
        at = workspace.added_at
        added = f", added {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at else ""
        name = f"{workspace.name} ({workspace.id})" if workspace.name else workspace.id
        yield f"in workspace {name}{added}{'' if workspace.counts else ', which does not count'}"
    yield from _more(explanation.workspaces_in_all - len(explanation.workspaces), "workspace")
    for change in explanation.last_changes:
        yield f"{_moment(change)}  {_change(change)}  ({change['trigger']})"
    yield from _more(explanation.changes_in_all - len(explanation.last_changes), "older change")


def _more(count: int, noun: str) -> Iterator[str]:
    if count > 0:
        yield f"and {count} more {noun}{'s' if count > 1 else ''}"


def _change(change: dict[str, Any]) -> str:
    old, new = change["old_manual_priority"] or "none", change["manual_priority"] or "none"
    manual = f", manual priority {old} → {new}" if old != new else ""
    before, after = change["old_priority"] or "none", change["new_priority"]
    priority = f"{after} as before" if before == after else f"{before} → {after}"
    return f"{priority}{_joined_or_left(change)}{manual}"


def _joined_or_left(change: dict[str, Any]) -> str:
    before, after = bool(change["old_is_workspace_repo"]), bool(change["is_workspace_repo"])
    if before == after:
        return ""
    return ", now in a workspace" if after else ", no longer in a workspace"


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower()


def _moment(change: dict[str, Any]) -> str:
    # In the zone that the database is set to.
    return f"{datetime.fromisoformat(change['changed_at']).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
