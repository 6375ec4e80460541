"""What a run did and found, as one line of JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Final

from priorityd.daemon.sandbox.worlds import PLAIN

RECOVERY_LIMIT_SECONDS: Final = 30.0


@dataclass
class Summary:
    """`wrong_rows`, `broken_audit` and `false_records` (entries of the trail about what never happened) count
    what is wrong at the end; `troubles` is empty if all daemons behaved. `unwritable` has the names of rows
    that were wrong after an episode because the world's application refuses the change (the most at once).

    `operations_per_second` is the rate while the application works, including outages of its database.
    `slowest_recovery_seconds` is the longest that any row stayed wrong after the last fault was healed and
    the application paused; `slowest_unharmed_seconds` the longest that a change not affected by any fault
    took while other rows were locked or poisoned; `slowest_takeover_seconds` the longest time without a
    leader after one was killed; `slowest_job_seconds` the longest that jobs took among unreported ones.
    `restarts` counts daemons that were killed and restarted.
    """

    seed: int
    world: str = PLAIN
    daemons: int = 1
    seconds: float = 0.0
    operations: int = 0
    operations_per_second: float = 0.0
    operations_refused: int = 0
    episodes: int = 0
    faults_total: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    longest_fault_seconds: float = 0.0
    slowest_recovery_seconds: float = 0.0
    slowest_recovery_after: list[str] = field(default_factory=list)
    unharmed_changes: int = 0
    slowest_unharmed_seconds: float = 0.0
    slowest_takeover_seconds: float = 0.0
    slowest_job_seconds: float = 0.0
    restarts: int = 0
    audit_entries: int = 0
    deadlocks: int = 0
    wrong_rows: int = 0
    broken_audit: int = 0
    false_records: int = 0
    unwritable: Counter[str] = field(default_factory=Counter)
    live_at_end: bool = False
    troubles: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything went wrong."""
        slow = self.slowest_recovery_seconds > RECOVERY_LIMIT_SECONDS
        wrong = self.wrong_rows or self.broken_audit or self.false_records or self.troubles
        return bool(wrong or slow or not self.live_at_end)

    def count(self, names: list[str], recovery_seconds: float) -> None:
        """Add an episode."""
        self.episodes += 1
        self.faults.update(names)
        self.faults_total += len(names)
        if recovery_seconds > self.slowest_recovery_seconds:
            self.slowest_recovery_seconds = round(recovery_seconds, 2)
            self.slowest_recovery_after = names

    def as_json(self) -> str:
        """The summary as one line of JSON."""
        counted = {"faults": self.faults, "unwritable": self.unwritable}
        return json.dumps(
            asdict(self) | {name: dict(sorted(found.items())) for name, found in counted.items()}
        )
