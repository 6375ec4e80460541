"""What `priorityd check` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.errors import ExitCode

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
