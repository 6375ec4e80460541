"""What `priorityd check` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.errors import ExitCode

Outcome = Literal["ok", "skipped", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One step's outcome; `remedy` says what to type or change."""

    step: str
    outcome: Outcome
    text: str
    remedy: str = ""
    exit_code: ExitCode = ExitCode.DONE
