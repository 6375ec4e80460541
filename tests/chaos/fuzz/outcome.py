"""The outcome of a run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """How many of each kind were sent, and what they led to.

    `changes_heard` counts the real changes among the nonsense, `calls` how calls of the store ended,
    `log_lines` the daemon's log events by name. `crashes` has what must not happen.
    """

    seed: int
    seconds: float = 0.0
    frames_total: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    changes_heard: int = 0
    malformed_events: int = 0
    reconnects: dict[str, int] = field(default_factory=dict)
    answers_total: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    log_lines: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)

    def crashed(self, error: object) -> None:
        """Record something that must not have happened."""
        self.crashes[repr(error)[:500]] += 1

    def as_json(self) -> str:
        """The outcome as one line of JSON."""
        return json.dumps(vars(self))
