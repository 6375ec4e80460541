"""Queues for a simulation: the released order, and Inngest's."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Protocol
from uuid import uuid4

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.jobs.events import Job, event_data
from tests.simulation.load import Arrival
from tests.support.cel import head_start
from tests.support.release_choice import Waiting, choose

NOBODY = -1


class Queue(Protocol):
    """What waits. `take` gives the next job and whether it was promoted."""

    def add(self, job: Arrival, workspace: int | None) -> None: ...

    def change(self, repository: int, workspace: int | None) -> None: ...

    def take(self, now: float) -> tuple[Arrival, bool] | None: ...


class OrderedQueue:
    """The order of docs/application.md by the policy of `core`, with repositories of two priorities."""

    def __init__(self, promote_after_seconds: float) -> None:
        self._promote_after_seconds = promote_after_seconds
        self._lanes: dict[int, deque[Arrival]] = defaultdict(deque)
        self._workspace: dict[int, int | None] = {}
        self._served: dict[int, int] = defaultdict(int)
        self._turns = 0
        self._promoted_last = False

    def add(self, job: Arrival, workspace: int | None) -> None:
        self._workspace[job.repository] = workspace
        self._lanes[job.repository].append(job)

    def change(self, repository: int, workspace: int | None) -> None:
        self._workspace[repository] = workspace

    def take(self, now: float) -> tuple[Arrival, bool] | None:
        heads: dict[int, Arrival] = {}  # by workspace
        for repository, lane in self._lanes.items():
            if lane:
                line = self._workspace[repository]
                line = NOBODY if line is None else line
                if line not in heads or lane[0].number < heads[line].number:
                    heads[line] = lane[0]
        other = heads.pop(NOBODY, None)
        choice = choose(
            Waiting(bool(heads), now - other.at if other else None, None),
            promoted_last=self._promoted_last,
            promote_after_seconds=self._promote_after_seconds,
        )
        if choice is None:
            return None
        self._promoted_last = choice.promoted
        if choice.priority == "high":
            line = min(heads, key=lambda each: (self._served[each], each))
            self._turns += 1
            self._served[line] = self._turns
            job = heads[line]
        else:
            assert other is not None
            job = other
        self._lanes[job.repository].popleft()
        return job, choice.promoted


class InngestQueue:
    """What Inngest documents: by the time of arrival less the head start that the event's priority gives.

    The priority is that of the moment at which the job was queued. An empty expression gives nobody any.
    """

    def __init__(self, expression: str) -> None:
        self._waiting: list[tuple[float, int, Arrival]] = []
        self._head_starts = {held: _head_start(expression, held=held) for held in (True, False)}

    def add(self, job: Arrival, workspace: int | None) -> None:
        seconds = self._head_starts[workspace is not None]
        self._waiting.append((job.at - seconds, job.number, job))

    def change(self, repository: int, workspace: int | None) -> None:
        """It has no way to know."""

    def take(self, now: float) -> tuple[Arrival, bool] | None:
        if not self._waiting:
            return None
        first = min(self._waiting)
        self._waiting.remove(first)
        return first[2], False


def _head_start(expression: str, *, held: bool) -> float:
    if not expression:
        return 0.0
    row = RepositoryPriority("high" if held else "medium", is_workspace_repo=held, workspace_count=int(held))
    return head_start(expression, {"data": event_data(Job("recent-prs", uuid4()), row)})
