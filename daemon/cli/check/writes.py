"""The part of `priorityd check` about writes: some were tried on tracked rows and rolled back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from priorityd.core.errors import ExitCode
from priorityd.daemon.cli.finding import Finding, Outcome, psql
from priorityd.daemon.database.rows import DatabaseCheck, RefusedWrite

_STEP: Final = "writes"
_WRITTEN: Final = "priority, is_workspace_repo, workspace_count and manual_priority"
_UNKNOWN_NAMES: Final = ("42P01", "42883", "42704", "42703", "3F000")
"""An undefined table, function, object, column or schema."""
_DENIED: Final = "42501"
_OWN_TABLE: Final = re.compile(r"permission denied for table tracked_repositories")


def writes_findings(database: DatabaseCheck) -> Iterator[Finding]:
    """One finding for each reason for which rows are refused; none if nothing could be tried."""
    writes = database.writes
    if writes is None:
        return
    if not writes.rows:
        text = "there is no tracked row to try one on yet"
        yield Finding(_STEP, "skipped", text, "Check again when there is one.", "priorityd check")
        return
    yield from (_refused(each, writes.rows, database.role) for each in writes.refused)
    if not writes.refused:
        rows = "one row" if writes.rows == 1 else f"{writes.rows} rows"
        yield Finding(_STEP, "ok", f"{rows} could be written; the writes were rolled back")


def _refused(write: RefusedWrite, tried: int, role: str) -> Finding:
    every = write.rows == tried
    rows = "no row can" if every else f"{write.rows} of the {tried} rows tried can't"
    why = f"{write.message} ({write.sqlstate})" if write.sqlstate else write.message
    by = f"; the cause is {' or '.join(write.culprits)}" if write.culprits else ""
    outcome: Outcome = "failed" if every else "warning"
    code = ExitCode.FAILED if every else ExitCode.DONE
    remedy, statement = _remedy(write, role)
    command = psql(statement) if statement else "priorityd check --json"
    return Finding(_STEP, outcome, f"{rows} be written: {why}{by}", remedy, command, code)


def _remedy(write: RefusedWrite, role: str) -> tuple[str, str]:
    if write.sqlstate == _DENIED and _OWN_TABLE.search(write.message):
        columns = "priority, is_workspace_repo, workspace_count, manual_priority"
        return (
            "Grant the role what it lacks.",
            f"grant select, update ({columns}) on public.tracked_repositories to {role}",
        )
    if write.sqlstate in _UNKNOWN_NAMES:
        remedy = (
            "The API writes with the search path public, extensions, as the application's own calls do. "
            "In the function, qualify that name with its schema. This command shows the function."
        )
    elif write.sqlstate == _DENIED:
        remedy = "Change it so that the role may update every tracked row. This command shows it."
    else:
        remedy = f"Change it so that it accepts changes of {_WRITTEN}. This command shows it."
    return remedy, write.look or ""
