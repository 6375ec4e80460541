"""What `priorityd check` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from priorityd.core.errors import ExitCode, PriorityError

Outcome = Literal["ok", "skipped", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One step's outcome; `remedy` says what to do about it, `command` what to type for that."""

    step: str
    outcome: Outcome
    text: str
    remedy: str = ""
    command: str = ""
    exit_code: ExitCode = ExitCode.DONE


def from_error(step: str, error: PriorityError, remedy: str, command: str) -> Finding:
    """A step that failed with this error."""
    return Finding(step, "failed", str(error), remedy, command, error.exit_code)


def psql(statement: str) -> str:
    """What to type to run a statement."""
    return f'psql "$DATABASE_URL" -c "{statement}"'
