"""Whether the next periodic sweep compares everything, or first sees whether the sums agree.

With the repositories that the last sweep has found untracked, `sweep_workspace_priorities` adds up
memberships and flagged rows, for half of what comparing them costs, and compares them only if the sums
differ. Where they differ although nothing is wrong, both are done in vain: where a workspace may hold a
repository twice, or while changes come faster than they are applied. Then it is left for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from core.answers import SyncAnswer

SWEEPS_WITHOUT: Final = 30
"""So many sweeps compare at once after one that did both in vain; five minutes on a small database."""


@dataclass(slots=True)
class SumCheck:
    """See the module's text."""

    _untracked: tuple[UUID, ...] | None = None
    _without: int = 0

    def untracked(self) -> tuple[UUID, ...] | None:
        """What the next periodic sweep is given; None lets it compare everything at once."""
        if self._without:
            self._without -= 1
            return None
        return self._untracked

    def learn(self, given: tuple[UUID, ...] | None, answer: SyncAnswer) -> None:
        """Remember what a sweep that was `given` this has answered."""
        found = answer.untracked_repository_ids
        if given is not None and answer.compared and answer.changed == 0 and found == given:
            self._without = SWEEPS_WITHOUT
        self._untracked = found
