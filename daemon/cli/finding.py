"""What `priorityd check` finds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from priorityd.core.errors import ExitCode, PriorityError

Outcome = Literal["ok", "skipped", "warning", "failed"]

_SPECIAL: Final = re.compile(r'([\\"$`])')


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one step. `remedy` says what to do about it, and `command` is what to type."""

    step: str
    outcome: Outcome
    text: str
    remedy: str = ""
    command: str = ""
    exit_code: ExitCode = ExitCode.DONE


def from_error(step: str, error: PriorityError, remedy: str, command: str) -> Finding:
    """The finding of a step that failed with this error."""
    return Finding(step, "failed", str(error), remedy, command, error.exit_code)


def psql(statement: str) -> str:
    """A shell command that runs a statement."""
    quoted = _SPECIAL.sub(r"\\\1", statement)
    return f'psql "$DATABASE_URL" -c "{quoted}"'
