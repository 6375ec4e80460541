"""What is released next, by searching plain lists: the rules in docs/application.md, the release policy."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from tests.support.release_choice import Waiting, choose

ALL_TYPES = (
    "comments",
    "historical-pr-sync",
    "pr-details",
    "recent-prs",
    "repository-discussions",
    "repository-issues",
    "reviews",
)
NOBODY = UUID(int=0)
PROMOTE_AFTER = 12 * 3600.0
MOST_LEASES = 3


@dataclass
class Job:
    id: UUID
    job_type: str
    repository: UUID
    queued_at: datetime
    number: int
    out: bool = False
    sent: bool = False
    over: bool = False
    claim_ended: bool = False
    losses: int = 0
    aside: int = 0  # since which release

    @property
    def age(self) -> tuple[datetime, int]:
        return self.queued_at, self.number


@dataclass
class Oracle:
    """What waits and whose turn it is."""

    jobs: list[Job] = field(default_factory=list)
    priority: dict[UUID, str] = field(default_factory=dict)
    members: dict[UUID, set[UUID]] = field(default_factory=lambda: defaultdict(set))  # by repository
    served: dict[tuple[str, UUID], int] = field(default_factory=lambda: defaultdict(int))
    type_served: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    promoted_last: dict[str, bool] = field(default_factory=lambda: defaultdict(bool))
    turns: int = 0
    releases: int = 0
    released_again: list[UUID] = field(default_factory=list)

    def release(
        self, in_flight: int, limit: int, now: datetime, locked: frozenset[UUID] = frozenset()
    ) -> list[tuple[UUID, str, bool]]:
        self.jobs = [job for job in self.jobs if not job.over]
        self.releases += 1
        for job in self.jobs:
            if job.out and job.claim_ended:
                if job.sent:
                    job.losses += 1
                job.aside = self.releases
                job.out = job.sent = job.claim_ended = False
        self.jobs = [job for job in self.jobs if job.out or job.losses < MOST_LEASES or job.id in locked]
        released: list[tuple[UUID, str, bool]] = []
        left_alone: set[tuple[str, UUID]] = set()
        for job_type in sorted(ALL_TYPES, key=lambda each: (self.type_served[each], each)):
            flying = [job for job in self.jobs if job.out and job.job_type == job_type]
            free = in_flight - sum(not job.losses for job in flying)
            room = min(1 - sum(job.losses > 0 for job in flying), limit - len(released))
            again = self._again(job_type, room, locked)
            while free > 0 and len(released) + again < limit:
                choice = self._next(job_type, now, left_alone)
                if choice is None:
                    break
                job, promoted, workspace = choice
                if job.id in locked:
                    left_alone.add((job_type, job.repository))
                    continue
                self._take(job, promoted, workspace)
                released.append((job.id, self.priority[job.repository], promoted))
                free -= 1
            limit -= again
            if len(released) == limit:
                break
        return released

    def _again(self, job_type: str, room: int, locked: frozenset[UUID]) -> int:
        lost = [
            job
            for job in self.jobs
            if job.job_type == job_type
            and not job.out
            and 0 < job.losses < MOST_LEASES
            and job.id not in locked
        ]
        chosen = sorted(lost, key=lambda job: (job.aside, job.number))[: max(room, 0)]
        for job in chosen:
            job.out = True
            self.released_again.append(job.id)
        return len(chosen)

    def _next(
        self, job_type: str, now: datetime, left_alone: set[tuple[str, UUID]]
    ) -> tuple[Job, bool, UUID | None] | None:
        waiting = [
            job
            for job in self.jobs
            if job.job_type == job_type
            and not (job.out or job.losses)
            and (job_type, job.repository) not in left_alone
        ]
        oldest = {
            priority: min(
                (job for job in waiting if self.priority[job.repository] == priority),
                key=lambda job: job.age,
                default=None,
            )
            for priority in ("high", "medium", "low")
        }

        def seconds(job: Job | None) -> float | None:
            return None if job is None else (now - job.queued_at).total_seconds()

        choice = choose(
            Waiting(oldest["high"] is not None, seconds(oldest["medium"]), seconds(oldest["low"])),
            promoted_last=self.promoted_last[job_type],
            promote_after_seconds=PROMOTE_AFTER,
        )
        if choice is None:
            return None
        if choice.priority != "high":
            job = oldest[choice.priority]
            assert job is not None
            return job, choice.promoted, None
        lines: dict[UUID, list[Job]] = defaultdict(list)
        for job in waiting:
            if self.priority[job.repository] == "high":
                for workspace in self.members[job.repository] or {NOBODY}:
                    lines[workspace].append(job)
        workspace = min(lines, key=lambda each: (self.served[job_type, each], each))
        return min(lines[workspace], key=lambda job: job.age), False, workspace

    def _take(self, job: Job, promoted: bool, workspace: UUID | None) -> None:
        self.turns += 1
        job.out = True
        self.type_served[job.job_type] = self.turns
        self.promoted_last[job.job_type] = promoted
        if workspace is not None:
            self.served[job.job_type, workspace] = self.turns
