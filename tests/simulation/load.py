"""A load: when which repository's job arrives and how long it takes, and when repositories change places."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

WORKERS = 4
MEAN_SECONDS = 30.0
"""Of work; exponentially distributed, as the times between arrivals are."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job of a repository."""

    at: float
    number: int
    repository: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Change:
    """A repository joins a workspace, or (None) leaves all."""

    at: float
    repository: int
    workspace: int | None


@dataclass(frozen=True)
class Load:
    """`high` repositories are in one of the `workspaces` at the start, `others` are in none.

    `high_share` and `other_share` are the parts of what the workers can do that their jobs ask for.
    `changes_per_hour`: so many pairs of repositories, one of each kind, then change places.
    """

    high_share: float
    other_share: float
    high: int = 40
    others: int = 60
    workspaces: int = 8
    changes_per_hour: float = 2.0
    seed: int = 1

    @property
    def repositories(self) -> int:
        return self.high + self.others

    def workspace_of(self, repository: int) -> int | None:
        """At the start."""
        return repository % self.workspaces if repository < self.high else None

    def events(self, until: float) -> Iterator[Arrival | Change]:
        """In their order, until then."""
        chance = random.Random(self.seed)
        workspace = [self.workspace_of(each) for each in range(self.repositories)]
        rate = WORKERS / MEAN_SECONDS
        rates = (self.high_share * rate, self.other_share * rate, self.changes_per_hour / 3600)
        now, number = 0.0, 0
        while (now := now + chance.expovariate(sum(rates))) < until:
            (kind,) = chance.choices((0, 1, 2), rates)
            in_one = [each for each, held_by in enumerate(workspace) if held_by is not None]
            in_none = [each for each, held_by in enumerate(workspace) if held_by is None]
            if kind == 2:
                joins, leaves = chance.choice(in_none), chance.choice(in_one)
                workspace[joins], workspace[leaves] = workspace[leaves], None
                yield Change(now, joins, workspace[joins])
                yield Change(now, leaves, None)
            else:
                repository = chance.choice((in_one, in_none)[kind])
                yield Arrival(now, number, repository, chance.expovariate(1 / MEAN_SECONDS))
                number += 1
