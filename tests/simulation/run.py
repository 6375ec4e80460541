"""Workers that do jobs in virtual time, and the judge of the order in which they began."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

from tests.simulation.load import WORKERS, Arrival, Change, Load
from tests.simulation.queues import Queue


@dataclass(slots=True)
class Record:
    """What became of the jobs that arrived before `judged_until`.

    An inversion is a job that began while one waited whose repository had a higher priority at that moment,
    unless it was promoted.
    """

    judged_until: float
    waits: dict[str, list[float]] = field(default_factory=lambda: {"high": [], "other": []})
    turnarounds: dict[str, list[float]] = field(default_factory=lambda: {"high": [], "other": []})
    inversions: int = 0
    promotions: int = 0
    waiting: int = 0
    """Judged jobs that had not begun at the end."""

    def summary(self) -> dict[str, Any]:
        """Hours of waiting by the priority at the start, and counts."""
        return {
            "jobs": sum(map(len, self.waits.values())),
            "inversions": self.inversions,
            "promotions": self.promotions,
            "not_begun": self.waiting,
            "wait_hours": {kind: _spread(waits) for kind, waits in self.waits.items()},
            "longest_hours_to_the_end": {
                kind: round(max(each, default=0.0) / 3600, 2) for kind, each in self.turnarounds.items()
            },
        }


def _spread(waits: list[float]) -> dict[str, float]:
    if len(waits) < 2:
        return {}
    cuts = quantiles(waits, n=20)
    return {"p50": _hours(cuts[9]), "p95": _hours(cuts[18]), "max": _hours(max(waits))}


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 3)


class Workers:
    """So many jobs at a time, each begun the moment a worker is free."""

    def __init__(self, load: Load, queue: Queue, record: Record) -> None:
        self._queue = queue
        self._record = record
        self._free = WORKERS
        self._ends: list[float] = []
        self._workspace = {each: load.workspace_of(each) for each in range(load.repositories)}
        self._changed_at: dict[int, float] = dict.fromkeys(self._workspace, 0.0)
        self._waiting: dict[int, int] = dict.fromkeys(self._workspace, 0)

    def run(self, events: Iterable[Arrival | Change]) -> None:
        """Until the events end."""
        for event in events:
            while self._ends and self._ends[0] <= event.at:
                ended_at = heapq.heappop(self._ends)
                self._free += 1
                self._begin(ended_at)
            if isinstance(event, Change):
                self._workspace[event.repository] = event.workspace
                self._changed_at[event.repository] = event.at
                self._queue.change(event.repository, event.workspace)
            else:
                self._record.waiting += event.at < self._record.judged_until
                self._waiting[event.repository] += 1
                self._queue.add(event, self._workspace[event.repository])
                self._begin(event.at)

    def _begin(self, now: float) -> None:
        while self._free and (taken := self._queue.take(now)) is not None:
            job, promoted = taken
            self._waiting[job.repository] -= 1
            self._free -= 1
            heapq.heappush(self._ends, now + job.seconds)
            if job.at < self._record.judged_until:
                self._judge(job, now, promoted=promoted)

    def _judge(self, job: Arrival, now: float, *, promoted: bool) -> None:
        record = self._record
        held = self._workspace[job.repository] is not None
        record.waiting -= 1
        record.promotions += promoted
        kind = "high" if held else "other"
        # A job that waited already when its repository joined a workspace is high from then on.
        since = max(job.at, self._changed_at[job.repository]) if held else job.at
        record.waits[kind].append(now - since)
        record.turnarounds[kind].append(now + job.seconds - since)
        if not held and not promoted:
            record.inversions += any(
                count and self._workspace[repository] is not None
                for repository, count in self._waiting.items()
            )


def simulate(load: Load, queue: Queue, judged_seconds: float, total_seconds: float) -> Record:
    """The load on the queue; the jobs of the first `judged_seconds` are judged."""
    record = Record(judged_seconds)
    Workers(load, queue, record).run(load.events(total_seconds))
    return record
