"""Turns errors into findings, so that a step that fails does not end the check."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

from priorityd.core.database.schema import APPLY_MIGRATIONS, missing_schema
from priorityd.core.errors import (
    ExitCode,
    KeyRefusedError,
    MissingGrantError,
    NoWritesError,
    PriorityError,
    TransientError,
)
from priorityd.daemon.cli.finding import Finding, from_error, psql
from priorityd.daemon.logs import redact

APPLY_AGAIN: Final = (
    'dir=$(mktemp -d) && priorityd migrations --into "$dir" && '
    'cat "$dir"/*.sql | psql "$DATABASE_URL" -v ON_ERROR_STOP=1'
)
"""Applies the whole set, whatever a project's directory and history say has been applied."""
APPLY: Final = (
    "Apply the migrations. The first time, they lock tracked_repositories, for seconds if it has a million "
    "rows: for a large table, read deploy/upgrade.md first."
)
_WHO_HOLDS: Final = psql(
    "select pid, usename, state, now() - xact_start as since, pg_blocking_pids(pid) as waits_for, "
    "left(query, 60) as query from pg_stat_activity where xact_start is not null order by xact_start"
)
_TAKES_WRITES: Final = psql(
    "select pg_is_in_recovery() as standby, current_setting('default_transaction_read_only') as read_only"
)
_OTHER_VERSION: Final = (
    "The functions in the database are of another version: apply the migrations again. Whatever is up to "
    "date stays as it is."
)
_BY_REASON: Final[Mapping[str, tuple[str, str]]] = {
    "timeout": (
        "Something blocks the database: this command shows the open transactions and which block others.",
        _WHO_HOLDS,
    ),
    "contention": ("Other transactions hold locks that this needs: this command shows them.", _WHO_HOLDS),
    "rate_limited": ("Too many calls: try again in a minute.", "priorityd check"),
    "bad_answer": (_OTHER_VERSION, APPLY_AGAIN),
}


async def guarded(step: str, findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    """The findings, and an error that ends them early as a finding of this step."""
    try:
        async for finding in findings:
            yield finding
    except PriorityError as error:
        yield from_call(step, error)
    except Exception as error:  # noqa: BLE001 - it is reported, and the other parts go on
        text = redact(f"this could not be tested: {type(error).__name__}: {error}")[:500]
        remedy = "This is a bug in priorityd: please report it with this text."
        yield Finding(step, "failed", text, remedy, "priorityd --version", ExitCode.FAILED)


def from_call(step: str, error: PriorityError) -> Finding:
    """What a failed call to the database means, and what to do about it."""
    if isinstance(error, MissingGrantError):
        return from_error(step, error, "Grant the role what it lacks.", psql(error.statements))
    if isinstance(error, KeyRefusedError):
        return from_error(step, error, "Copy the key again.", "export SUPABASE_SERVICE_ROLE_KEY=…")
    if isinstance(error, TransientError):
        if error.reason == "schema_cache":
            return from_error(step, missing_schema(), APPLY, APPLY_MIGRATIONS)
        if isinstance(error, NoWritesError):
            remedy = (
                "It is a standby, or it was made read-only, which Supabase does when the disk is full: see "
                "the project's database page. This command shows which."
            )
            return from_error(step, error, remedy, _TAKES_WRITES)
        remedy, command = _BY_REASON.get(error.reason, ("Try again in a minute.", "priorityd check"))
        return from_error(step, error, remedy, command)
    remedy = (
        "The database's message says what is wrong. If a part of priorityd's schema is missing, apply "
        "the migrations again. Whatever is up to date stays as it is."
    )
    return from_error(step, error, remedy, APPLY_AGAIN)
