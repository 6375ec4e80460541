"""Jobs that never report, and how long the others wait because of them.

Two types have the same jobs, and the same limit in flight. All jobs of one type report; ten of the other type
start and never report it. Both are released by the same calls, and wait in virtual time.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import defaultdict
from typing import Any
from uuid import UUID, uuid4

from tests.benchmarks.database import application
from tests.benchmarks.figures import at_most
from tests.simulation.load import MEAN_SECONDS
from tests.support.application import Application

JOBS, UNREPORTED, IN_FLIGHT = 500, 10, 10
LEASES = (3600.0, 120.0)
"""The default, which is longer than the whole run, and one that expires often during it."""
STEP_SECONDS = 5.0
"""Between releases, unless a job ends sooner; a daemon asks more often."""
NONE, SOME = "recent-prs", "reviews"
RATIO_BAR = 1.2

Json = dict[str, Any]


def unreported() -> Json:
    """See the module's docstring; returns the others' mean seconds of waiting, by the length of a lease."""
    answer: Json = {"jobs": JOBS, "unreported": UNREPORTED, "in_flight": IN_FLIGHT}
    for lease_seconds in LEASES:
        with application() as (_, app):
            app.connection.execute("set synchronous_commit = off")
            waits = _Run(app, lease_seconds).waits()
        mean = {each: sum(waits[each]) / len(waits[each]) for each in (NONE, SOME)}
        answer[f"lease_of_{lease_seconds:.0f}_seconds"] = {
            "mean_seconds_beside_none": round(mean[NONE], 1),
            "mean_seconds_beside_some": round(mean[SOME], 1),
            "ratio": at_most(mean[SOME] / mean[NONE], RATIO_BAR),
        }
    return answer


class _Run:
    """The jobs of both types, the n-th of each alike, from the first release to the last."""

    def __init__(self, app: Application, lease_seconds: float) -> None:
        chance = random.Random(1)
        self._app = app
        self._lease_seconds = lease_seconds
        self._daemon = uuid4()
        self._seconds = [chance.expovariate(1 / MEAN_SECONDS) for _ in range(JOBS)]
        self._silent = set(chance.sample(range(JOBS), UNREPORTED))
        self._jobs = self._queue(app.repositories(1)[0])
        self._ends: list[tuple[float, str]] = []
        self._waits: dict[str, list[float]] = defaultdict(list)

    def waits(self) -> dict[str, list[float]]:
        """By type, for the jobs that report in both."""
        now, others = 0.0, 2 * (JOBS - UNREPORTED)
        while sum(map(len, self._waits.values())) < others:
            self._release(now)
            following = min(self._ends[0][0] if self._ends else now + STEP_SECONDS, now + STEP_SECONDS)
            self._pass(following - now)
            now = following
            self._end(now)
        return self._waits

    def _queue(self, repository: UUID) -> dict[str, tuple[str, int]]:
        jobs: dict[str, tuple[str, int]] = {}
        for job_type in (NONE, SOME):
            wanted = json.dumps([{"repository_id": str(repository)}] * JOBS)
            queued = self._call("queue_repository_jobs(%s, %s)", wanted, job_type)["jobs"]
            jobs |= {job["job_id"]: (job_type, number) for number, job in enumerate(queued)}
        return jobs

    def _release(self, now: float) -> None:
        answer = self._call(
            "release_ordered_jobs(%s, %s, p_lease_seconds => %s)",
            self._daemon,
            IN_FLIGHT,
            self._lease_seconds,
        )
        out = [job["job_id"] for job in answer["jobs"]]
        self._call("mark_jobs_sent(%s::uuid[], %s)", out, self._lease_seconds)
        at_work = [job for job in out if not self._never_heard_of(job)]
        self._say("processing", at_work)
        for job in at_work:
            job_type, number = self._jobs[job]
            heapq.heappush(self._ends, (now + self._seconds[number], job))
            if number not in self._silent:
                self._waits[job_type].append(now)

    def _never_heard_of(self, job: str) -> bool:
        job_type, number = self._jobs[job]
        return job_type == SOME and number in self._silent

    def _end(self, now: float) -> None:
        over = sum(each[0] <= now for each in self._ends)
        self._say("completed", [heapq.heappop(self._ends)[1] for _ in range(over)])

    def _say(self, status: str, jobs: list[str]) -> None:
        self._app.connection.execute(
            "update background_jobs set status = %s where id = any (%s::uuid[])", (status, jobs)
        )

    def _pass(self, seconds: float) -> None:
        """Move the times in flight that the database remembers back by this much."""
        self._app.connection.execute(
            """update priorityd.ordered_jobs
               set sent_at = sent_at - make_interval(secs => %(s)s),
                   lease_until = lease_until - make_interval(secs => %(s)s)
               where released_at is not null""",
            {"s": seconds},
        )

    def _call(self, call: str, *args: object) -> Any:
        row = self._app.connection.execute(f"select {call}".encode(), args).fetchone()
        assert row is not None
        return row[0]
