"""The order of releases against an oracle that searches plain lists, whatever happens in between.

What happens: jobs of several types are queued, workspaces take and drop repositories, priorities are pinned
and written by hand, jobs end, are cancelled (by us and behind our back) or deleted, grow old, and are locked
by others; daemons release one after the other and at the same time, die before and after their release is
committed, and come back. What the oracle knows of it is the rules in
docs/application.md; the policy is in tests/support/release_choice.py.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.effort import tries
from tests.support.release_oracle import PROMOTE_AFTER, Job, Oracle
from tests.support.world import Background, World, session

if TYPE_CHECKING:
    from tests.support.database import Database

TYPES = ("pr-details", "reviews")
REPOSITORIES, WORKSPACES = 6, 3
index = st.integers(min_value=0)
job_types = st.sampled_from(TYPES)
limits = st.integers(min_value=1, max_value=7)


class ReleaseOrder(RuleBasedStateMachine):
    world: World  # set by the test
    database: Database

    @initialize()
    def empty(self) -> None:
        self.world.execute(
            """truncate repositories, workspaces, repository_priority_changes, background_jobs,
                   priorityd.ordered_jobs, priorityd.job_lanes,
                   priorityd.job_turns, priorityd.job_hints cascade;
               update priorityd.job_types
               set served = 0, promoted_last = false, turn_mark = 0, in_flight = '{}';
               update priorityd.release_state set turns = 0"""
        )
        self.oracle = Oracle()
        self.repositories = [self.world.tracked() for _ in range(REPOSITORIES - 1)]
        self.repositories.append(self.world.repository())  # untracked
        self.workspaces = [self.world.workspace() for _ in range(WORKSPACES)]
        self.manual: dict[UUID, str | None] = defaultdict(lambda: None)
        for repository in self.repositories:
            self.decide(repository)

    def decide(self, repository: UUID) -> None:
        tracked = repository is not self.repositories[-1]
        if tracked and self.oracle.members[repository]:
            self.oracle.priority[repository] = "high"
        else:
            self.oracle.priority[repository] = (self.manual[repository] if tracked else None) or "medium"

    def pick(self, number: int) -> UUID:
        return self.repositories[number % REPOSITORIES]

    def jobs(self, *, out: bool) -> list[Job]:
        return [job for job in self.oracle.jobs if job.out == out and not job.over]

    @rule(numbers=st.lists(index, min_size=1, max_size=4), job_type=job_types)
    def queue(self, numbers: list[int], job_type: str) -> None:
        jobs = [{"repository_id": str(self.pick(n)), "job_id": str(uuid4())} for n in numbers]
        for _ in range(2):  # the second time changes nothing
            self.world.call("queue_repository_jobs", json.dumps(jobs), job_type)
        for each in jobs:
            job_id = UUID(each["job_id"])
            row = self.world.execute(
                "select queued_at, number from priorityd.ordered_jobs where job_id = %s", job_id
            ).fetchone()
            assert row is not None
            self.oracle.jobs.append(Job(job_id, job_type, UUID(each["repository_id"]), *row))

    @rule(number=index, workspace=index)
    def add_to_workspace(self, number: int, workspace: int) -> None:
        repository, holder = self.pick(number), self.workspaces[workspace % WORKSPACES]
        if holder not in self.oracle.members[repository]:
            self.world.add(repository, holder)
            self.oracle.members[repository].add(holder)
            self.synced(repository)

    @rule(number=index)
    def remove_from_workspace(self, number: int) -> None:
        repository = self.pick(number)
        for holder in sorted(self.oracle.members[repository])[:1]:
            self.world.remove(repository, holder)
            self.oracle.members[repository].remove(holder)
            self.synced(repository)

    @rule(number=index, priority=st.sampled_from([None, "high", "medium", "low"]))
    def pin(self, number: int, priority: str | None) -> None:
        repository = self.pick(number)
        if repository is not self.repositories[-1]:
            self.world.pin(repository, priority)
            self.manual[repository] = priority
            self.decide(repository)

    def synced(self, repository: UUID) -> None:
        before = self.oracle.priority[repository]
        self.world.sync(repository)
        self.decide(repository)
        if before == self.oracle.priority[repository]:
            # Nothing on record changed, but in whose lines it stands.
            self.world.call("check_job_lanes")

    def place(self, repository: UUID) -> None:
        self.world.execute("insert into priorityd.job_hints (repository_id) values (%s)", repository)

    @rule(number=index, priority=st.sampled_from(["high", "medium", "low"]))
    def write_priority_by_hand(self, number: int, priority: str) -> None:
        repository = self.pick(number)
        if repository is self.repositories[-1] or self.oracle.members[repository]:
            return
        self.world.execute(
            "update tracked_repositories set priority = %s, manual_priority = %s where repository_id = %s",
            priority,
            priority,
            repository,
        )
        self.manual[repository] = priority
        self.decide(repository)
        self.world.call("check_job_lanes")

    @precondition(lambda self: self.jobs(out=True))
    @rule(number=index, status=st.sampled_from(["completed", "failed", "cancelled", None]))
    def end(self, number: int, status: str | None) -> None:
        out = self.jobs(out=True)
        job = out[number % len(out)]
        job.over = True
        if status is None:
            self.world.execute("delete from background_jobs where id = %s", job.id)
        else:
            self.world.execute("update background_jobs set status = %s where id = %s", status, job.id)

    @precondition(lambda self: self.jobs(out=False))
    @rule(number=index, how=st.sampled_from(["ours", "status", "delete"]))
    def cancel(self, number: int, how: str) -> None:
        waiting = self.jobs(out=False)
        job = waiting[number % len(waiting)]
        job.over = True
        if how == "ours":
            assert self.world.call("cancel_ordered_jobs", [job.id])["cancelled"] == 1
        elif how == "status":
            self.world.execute("update background_jobs set status = 'cancelled' where id = %s", job.id)
        else:
            self.world.execute("delete from background_jobs where id = %s", job.id)

    @precondition(lambda self: self.jobs(out=False))
    @rule(number=index)
    def grow_old(self, number: int) -> None:
        """All jobs of a repository that wait."""
        waiting = self.jobs(out=False)
        repository = waiting[number % len(waiting)].repository
        for job in waiting:
            if job.repository == repository:
                job.queued_at = self.world.value(
                    """update priorityd.ordered_jobs set queued_at = queued_at - interval '1 day'
                       where job_id = %s returning queued_at""",
                    job.id,
                )
        self.place(repository)

    # Releases.

    @rule(in_flight=limits, limit=limits)
    def release(self, in_flight: int, limit: int) -> None:
        self.expect(in_flight, limit, [self.until_not_busy(self.world, in_flight, limit)])

    @rule(in_flight=limits, limit=limits, daemons=st.integers(min_value=2, max_value=3))
    def release_at_the_same_time(self, in_flight: int, limit: int, daemons: int) -> None:
        sessions = [session(self.database) for _ in range(daemons)]
        calls = [Background(partial(self.until_not_busy, each, in_flight, limit)) for each in sessions]
        self.expect(in_flight, limit, [call.result() for call in calls])
        for each in sessions:
            each.connection.close()

    @rule(in_flight=limits, limit=limits)
    def die_before_the_release_is_committed(self, in_flight: int, limit: int) -> None:
        dying = session(self.database, autocommit=False)
        self.call(dying, in_flight, limit)
        dying.connection.close()  # the server notices when it does: until then others are told to come back

    @precondition(lambda self: self.jobs(out=True))
    @rule(number=index)
    def die_before_it_is_sent(self, number: int) -> None:
        """Its claim runs out."""
        for job in self.jobs(out=True):
            if not job.sent:
                job.claim_ended = True
        self.world.execute(
            """update priorityd.ordered_jobs set lease_until = clock_timestamp()
               where released_at is not null and sent_at is null"""
        )

    @precondition(lambda self: self.jobs(out=True))
    @rule()
    def send(self) -> None:
        ids = [job.id for job in self.jobs(out=True)]
        self.world.call("mark_jobs_sent", ids)
        for job in self.jobs(out=True):
            job.sent, job.claim_ended = True, False

    @precondition(lambda self: any(job.sent for job in self.jobs(out=True)))
    @rule(number=index)
    def lose(self, number: int) -> None:
        sent = [job for job in self.jobs(out=True) if job.sent]
        job = sent[number % len(sent)]
        job.claim_ended = True
        self.world.execute(
            """update priorityd.ordered_jobs set lease_until = clock_timestamp()
               where job_id = %s""",
            job.id,
        )

    @precondition(lambda self: self.jobs(out=False))
    @rule(number=index, in_flight=limits, limit=limits)
    def release_while_somebody_holds_a_job(self, number: int, in_flight: int, limit: int) -> None:
        waiting = self.jobs(out=False)
        job = waiting[number % len(waiting)]
        holder = session(self.database, autocommit=False)
        holder.execute("select from background_jobs where id = %s for update", job.id)
        released = self.until_not_busy(self.world, in_flight, limit)
        holder.connection.rollback()
        holder.connection.close()
        self.expect(in_flight, limit, [released], frozenset([job.id]))

    def call(self, world: World, in_flight: int, limit: int) -> dict[str, Any]:
        return world.call(
            "release_ordered_jobs",
            uuid4(),
            p_in_flight=in_flight,
            p_limit=limit,
            p_promote_after_seconds=PROMOTE_AFTER,
        )

    def until_not_busy(self, world: World, in_flight: int, limit: int) -> dict[str, Any]:
        while (answer := self.call(world, in_flight, limit))["busy"]:
            pass
        return answer

    def expect(
        self, in_flight: int, limit: int, answers: list[dict[str, Any]], locked: frozenset[UUID] = frozenset()
    ) -> None:
        now = self.world.value("select clock_timestamp()")
        out = [job for answer in answers for job in answer["jobs"]]
        jobs = sorted((job for job in out if not job["losses"]), key=lambda job: job["turn"])
        released = [(UUID(job["job_id"]), job["priority"], job["promoted"]) for job in jobs]
        self.oracle.released_again = []
        expected = [each for _ in answers for each in self.oracle.release(in_flight, limit, now, locked)]
        assert released == expected
        assert {UUID(job["job_id"]) for job in out if job["losses"]} == set(self.oracle.released_again)
        assert [job["turn"] for job in jobs] == list(
            range(self.oracle.turns - len(jobs) + 1, self.oracle.turns + 1)
        )
        flying = self.world.execute(
            """select job_type, count(*) from priorityd.ordered_jobs
               where released_at is not null group by 1"""
        ).fetchall()
        assert dict(flying) == Counter(job.job_type for job in self.jobs(out=True))


def test_jobs_are_released_in_the_order_of_the_oracle(database: Database) -> None:
    ReleaseOrder.world = session(database)
    ReleaseOrder.database = database
    run_state_machine_as_test(
        ReleaseOrder,
        settings=settings(
            max_examples=tries(10),
            stateful_step_count=40,
            deadline=None,
            # Each step costs milliseconds: a failure is shown as it was found.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
