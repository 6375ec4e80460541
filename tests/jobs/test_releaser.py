"""The releaser on a real database behind the sandbox's REST surface, against the stand-in for Inngest."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import anyio
import pytest
from structlog.testing import capture_logs

from priorityd.core.errors import PermanentError
from priorityd.core.jobs.events import Job
from priorityd.core.jobs.released import ReleaseLimits, event_id
from priorityd.core.vocabulary import PriorityForm
from priorityd.daemon.cli.jobs import why_none_is_released
from priorityd.daemon.database.store import open_store
from priorityd.daemon.inngest.api import open_inngest_api
from priorityd.daemon.inngest.sender import open_event_sender
from priorityd.daemon.jobs.ordered_jobs import OrderedJobs
from priorityd.daemon.jobs.ordered_queue import OrderedQueue, job_id
from priorityd.daemon.jobs.releaser import Releaser
from priorityd.daemon.liveness import Liveness
from priorityd.daemon.metrics import PREFIX
from priorityd.daemon.status.metrics import Metrics
from tests.support.application import Application
from tests.support.daemon_process import eventually
from tests.support.database import Database
from tests.support.event_api import SEEN_SECONDS, Faults
from tests.support.faults import Faults as ServerFaults
from tests.support.faults import misbehave
from tests.support.inngest import StandIn
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers import Servers, start_servers
from tests.support.situations import named

TO_WITHIN_SECONDS = 60
"""How exactly the database knows when a daemon last asked for jobs."""


@dataclass
class Bench:
    """A database with an application, its REST surface, and Inngest's stand-in."""

    server: Servers
    app: Application
    inngest: StandIn

    @asynccontextmanager
    async def releaser(
        self,
        in_flight: int = 100,
        form: PriorityForm = "score",
        leader: bool = False,
        *,
        asks: bool = False,
        most_leases: int = 3,
        runs: bool = True,
    ) -> AsyncIterator[Releaser]:
        """A releaser, which runs for the length of the block."""
        self.metrics = Metrics()
        async with (
            open_store(self.server.url, self.server.service_role_key) as store,
            open_event_sender(
                self.inngest.settings(), max_attempts=1, timeout_seconds=PATIENCE_SECONDS
            ) as sender,
            open_inngest_api(self.inngest.settings()) as api,
            anyio.create_task_group() as tasks,
        ):
            releaser = Releaser(
                OrderedJobs(store, uuid4()),
                sender,
                api if asks else None,
                limits=ReleaseLimits(in_flight, 86_400, 3600, most_leases),
                form=form,
                is_leader=lambda: leader,
                metrics=self.metrics.releases,
                liveness=Liveness(),
            )
            if runs:
                tasks.start_soon(releaser.run)
            yield releaser
            tasks.cancel_scope.cancel()

    async def queue(self, *repositories: UUID, **data: object) -> list[UUID]:
        async with open_store(self.server.url, self.server.service_role_key) as store:
            jobs = [Job("recent-prs", each, "acme/web", data, uuid4().hex) for each in repositories]
            result = await OrderedQueue(store).queue_jobs(jobs)
        assert len(result.sent) == len(jobs)
        return [job_id(job) for job in jobs]

    def high(self) -> UUID:
        repository = self.app.repository()
        self.app.add(self.app.workspace(), repository)
        self.app.connection.execute("select sync_workspace_priorities(%s)", ([repository],))
        return repository

    def state(self, condition: str) -> int:
        row = self.app.connection.execute(
            f"select count(*) from priorityd.ordered_jobs where {condition}".encode()
        ).fetchone()
        assert row is not None
        number: int = row[0]
        return number

    async def beside(self, statement: bytes, *values: object) -> None:
        """Execute what may have to wait for a call that the sandbox, in this event loop, has to end."""
        await anyio.to_thread.run_sync(lambda: self.app.connection.execute(statement, values))

    async def end(self, *jobs: UUID) -> None:
        await self.beside(b"update background_jobs set status = 'completed' where id = any (%s)", list(jobs))

    async def lose(self, *jobs: UUID) -> None:
        """Their lease ends."""
        await self.beside(
            b"update priorityd.ordered_jobs set lease_until = clock_timestamp() where job_id = any (%s)",
            list(jobs),
        )

    def status(self, job: UUID) -> str:
        row = self.app.connection.execute(
            "select status from background_jobs where id = %s", (job,)
        ).fetchone()
        assert row is not None
        status: str = row[0]
        return status

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(PREFIX + name, labels) or 0.0

    @property
    def sent(self) -> list[UUID]:
        return [UUID(event["data"]["jobId"]) for event in self.inngest.api.runs]


@pytest.fixture
async def bench(database: Database, event_api: StandIn) -> AsyncIterator[Bench]:
    async with start_servers(database.url, faults=ServerFaults()) as server:
        yield Bench(server, Application(database.connect()), event_api)


async def test_a_released_job_is_the_event_that_would_have_queued_it(bench: Bench) -> None:
    repository = bench.high()
    (job,) = await bench.queue(repository, days=30, metadata={"source": "cron"})
    async with bench.releaser():
        await eventually(lambda: bench.state("sent_at is not null") == 1)
        await eventually(lambda: bench.metric("jobs_released_total", priority="high") == 1)
        await eventually(lambda: bench.metric("jobs_in_flight", priority="high") == 1)
    (event,) = bench.inngest.api.accepted
    assert (event["name"], event["id"]) == ("capture/repository.sync.graphql", event_id(job))
    assert event["data"] == {
        "repositoryId": str(repository),
        "repositoryName": "acme/web",
        "jobId": str(job),
        "priority": 100,
        "days": 30,
        "metadata": {
            "source": "cron",
            "promoted": False,
            "isWorkspaceRepo": True,
            "workspaceCount": 1,
            "originalPriority": "high",
            "priority": "high",
            "priorityScore": 100,
            "priorityLookup": "found",
        },
    }


async def test_consumers_that_read_a_word_get_a_word(bench: Bench) -> None:
    await bench.queue(bench.app.repository())
    async with bench.releaser(form="word"):
        (event,) = await eventually(lambda: bench.inngest.api.accepted)
    assert (event["data"]["priority"], event["data"]["priorityScore"]) == ("medium", 50)


async def test_a_slot_that_is_free_is_used_by_the_next_in_order(bench: Bench) -> None:
    repositories = bench.app.repositories(3)
    jobs = await bench.queue(*repositories)
    async with bench.releaser(in_flight=1):
        await eventually(lambda: bench.sent == jobs[:1])
        bench.app.add(bench.app.workspace(), repositories[2])
        bench.app.connection.execute("select sync_workspace_priorities(%s)", ([repositories[2]],))
        for expected in ([jobs[0], jobs[2]], [jobs[0], jobs[2], jobs[1]]):
            await bench.end(bench.sent[-1])
            await eventually(lambda expected=expected: bench.sent == expected)


async def test_inngest_failing_stops_releases_and_not_intake_and_keeps_the_order_open(bench: Bench) -> None:
    repositories = bench.app.repositories(3)
    bench.inngest.api.faults = Faults(status=503)
    jobs = await bench.queue(*repositories)
    async with bench.releaser() as releaser:
        await eventually(lambda: bench.metric("job_releases_held_back") == 1)
        assert releaser.held_back_because is not None
        assert "503" in releaser.held_back_because
        # All of them wait again, so a change of priority still reaches them.
        await eventually(lambda: bench.state("released_at is null") == 3)
        later = await bench.queue(bench.high())
        assert bench.sent == []
        bench.inngest.api.faults = Faults()
        await eventually(lambda: set(bench.sent) == {*later, *jobs})
        assert bench.sent == [*later, *jobs]
        assert bench.metric("job_releases_held_back") == 0


async def test_while_inngest_has_it_wait_nobody_says_that_no_daemon_releases(bench: Bench) -> None:
    bench.inngest.api.faults = Faults(status=429, retry_after=3600)
    await bench.queue(bench.app.repository())
    async with bench.releaser(runs=False) as releaser:
        rest = await releaser.turn()
    assert rest > 290
    said = why_none_is_released(rest + TO_WITHIN_SECONDS)
    assert said is not None
    assert said.startswith("Perhaps")


async def test_while_inngest_fails_one_job_at_a_time_is_tried(bench: Bench) -> None:
    bench.inngest.api.faults = Faults(status=500, accept=1000)
    await bench.queue(*bench.app.repositories(3))
    async with bench.releaser():
        await eventually(lambda: len(bench.inngest.api.requests) == 2)
    assert bench.inngest.api.requests == [3, 1]


async def test_an_answer_that_was_lost_doubles_nothing(bench: Bench) -> None:
    """Inngest has taken the events, and sending seemed to fail: they are sent again under the same ids."""
    bench.inngest.api.faults = Faults(reset="after", requests=1)
    jobs = await bench.queue(*bench.app.repositories(3))
    async with bench.releaser():
        await eventually(lambda: bench.state("sent_at is not null") == 3)
    assert len(bench.inngest.api.accepted) > 3
    assert bench.sent == jobs


async def test_a_refused_job_fails_and_the_others_go(bench: Bench) -> None:
    repositories = bench.app.repositories(3)
    jobs = await bench.queue(*repositories)
    bench.inngest.api.faults = Faults(refuse=str(jobs[1]))
    async with bench.releaser():
        await eventually(lambda: bench.sent == [jobs[0], jobs[2]])
        await eventually(lambda: bench.state("true") == 2)
    row = bench.app.connection.execute(
        "select status, error from background_jobs where id = %s", (jobs[1],)
    ).fetchone()
    assert row is not None
    assert row[0] == "failed"
    assert "told to refuse this event" in row[1]


async def test_a_daemon_that_is_cancelled_in_the_middle_of_a_batch_gives_it_back(bench: Bench) -> None:
    bench.inngest.api.faults = Faults(hang=True)
    await bench.queue(*bench.app.repositories(3))
    async with bench.releaser():
        await eventually(lambda: bench.inngest.api.attempts == 1)
        assert bench.state("released_at is not null") == 3
    assert bench.state("released_at is null") == 3


def expire_claims(bench: Bench) -> None:
    """Until a job is marked as sent, its lease is the claim."""
    bench.app.connection.execute(
        "update priorityd.ordered_jobs set lease_until = now() where released_at is not null"
        " and sent_at is null"
    )


@pytest.mark.parametrize("inngest_fails", [False, True])
async def test_a_daemon_that_is_stopped_in_an_outage_ends_and_loses_no_job(
    bench: Bench, *, inngest_fails: bool
) -> None:
    jobs = await bench.queue(*bench.app.repositories(3))
    bench.inngest.api.faults = Faults(status=503) if inngest_fails else Faults()
    settling = "return_unsent_jobs" if inngest_fails else "mark_jobs_sent"
    misbehave(bench.server, f"rest/fail?status=400&sqlstate=P0001&function={settling}", seconds=3600)
    with capture_logs() as logs:
        async with bench.releaser(runs=False) as releaser:
            await releaser.turn()
            misbehave(bench.server, "rest/fail?status=503&name=all", seconds=3600)
            releaser.stop()
            await releaser.run()
    assert [line["event"] for line in logs] == ["job_release_failed", "claim_return_failed"]
    assert bench.state("released_at is not null and sent_at is null") == 3
    misbehave(bench.server, "rest/fail?name=all", seconds=0)
    misbehave(bench.server, f"rest/fail?function={settling}", seconds=0)
    bench.inngest.api.faults = Faults()
    expire_claims(bench)
    async with bench.releaser():
        await eventually(lambda: bench.state("sent_at is not null") == 3)
    assert bench.sent == jobs


async def test_a_daemon_that_is_stopped_after_an_outage_settles_its_last_batch(bench: Bench) -> None:
    await bench.queue(*bench.app.repositories(3))
    misbehave(bench.server, "rest/fail?status=400&sqlstate=P0001&function=mark_jobs_sent", seconds=3600)
    async with bench.releaser(runs=False) as releaser:
        await releaser.turn()
        misbehave(bench.server, "rest/fail?function=mark_jobs_sent", seconds=0)
        releaser.stop()
        await releaser.run()
    assert bench.state("sent_at is not null") == 3


async def test_what_went_past_us_is_found_by_the_leader(bench: Bench) -> None:
    repositories = bench.app.repositories(3)
    jobs = await bench.queue(*repositories)
    async with bench.releaser(in_flight=1):
        await eventually(lambda: bench.sent == jobs[:1])
    await bench.beside(
        b"update tracked_repositories set priority = 'high' where repository_id = %s", repositories[2]
    )
    await bench.end(jobs[0])
    async with bench.releaser(in_flight=1, leader=True):
        await eventually(lambda: bench.sent == [jobs[0], jobs[2]])


async def test_fields_that_are_set_at_the_release_are_refused_before_anything_is_queued(bench: Bench) -> None:
    for data in ({"jobId": "x"}, {"metadata": {"promoted": True}}):
        with pytest.raises(PermanentError, match="which priorityd sets"):
            await bench.queue(bench.app.repository(), **data)
    assert bench.state("true") == 0


async def test_jobs_that_nobody_reports_on_hold_nobody_up_and_fail_in_the_end(bench: Bench) -> None:
    """Sent again they start nothing: Inngest knows their events for a day."""
    lost = await bench.queue(*named(bench.app, "acme/web", "acme/api", "acme/docs"))
    with capture_logs() as logs:
        async with bench.releaser(in_flight=3, most_leases=2) as releaser:
            await eventually(lambda: bench.state("sent_at is not null") == 3)
            others = await bench.queue(*bench.app.repositories(3))
            await bench.lose(*lost)
            await eventually(lambda: bench.sent == [*lost, *others])
            await eventually(lambda: bench.state("losses = 1 and sent_at is not null") == 1)
            assert releaser.release is not None
            await eventually(lambda: bench.metric("jobs_lost_now") == 3)
            for _ in lost:
                await eventually(lambda: bench.state("losses = 1 and sent_at is not null") == 1)
                (again,) = [
                    row[0]
                    for row in bench.app.connection.execute(
                        "select job_id from priorityd.ordered_jobs where losses = 1 and sent_at is not null"
                    )
                ]
                await bench.lose(again)
                await eventually(lambda again=again: bench.status(again) == "failed")
            await eventually(lambda: bench.metric("jobs_given_up_total") == 3)
            await eventually(lambda: bench.metric("jobs_lost_now") == 0)
    told = [line["name"] for line in logs if line["event"] == "job_given_up"]
    assert sorted(told) == ["acme/api", "acme/docs", "acme/web"]
    assert bench.sent == [*lost, *others]
    assert bench.inngest.api.asked == []


@pytest.mark.parametrize("status", ["Completed", "Failed", "Cancelled"])
async def test_a_lost_job_ends_as_its_run_did(bench: Bench, status: str) -> None:
    (job,) = await bench.queue(bench.app.repository())
    async with bench.releaser(asks=True):
        await eventually(lambda: bench.state("sent_at is not null") == 1)
        bench.inngest.api.end_runs(status)
        await bench.lose(job)
        await eventually(lambda: bench.status(job) == status.lower())
    assert len(bench.inngest.api.accepted) == 1


async def test_a_lost_job_that_runs_is_in_flight_again(bench: Bench) -> None:
    (job,) = await bench.queue(bench.app.repository())
    async with bench.releaser(in_flight=1, asks=True):
        await eventually(lambda: bench.state("sent_at is not null") == 1)
        await bench.lose(job)
        await eventually(lambda: len(bench.inngest.api.asked) == 1)
        await eventually(lambda: bench.state("losses = 0 and lease_until > now() + interval '59 min'") == 1)
    assert len(bench.inngest.api.accepted) == 1


async def test_inngest_is_asked_by_the_id_of_the_first_event(bench: Bench) -> None:
    """A repeat gets another one, and that leads to no run."""
    (job,) = await bench.queue(bench.app.repository())
    async with bench.releaser():
        for losses in (0, 1):
            await eventually(
                lambda losses=losses: bench.state(f"sent_at is not null and losses = {losses}") == 1
            )
            await bench.lose(job)
        await eventually(lambda: bench.state("sent_at is not null and losses = 2") == 1)
    bench.inngest.api.end_runs("Completed")
    await bench.lose(job)
    async with bench.releaser(asks=True, most_leases=5):
        await eventually(lambda: bench.status(job) == "completed")


async def test_a_job_whose_event_inngest_has_forgotten_runs_again(bench: Bench) -> None:
    (job,) = await bench.queue(bench.app.repository())
    async with bench.releaser():
        await eventually(lambda: bench.state("sent_at is not null") == 1)
        bench.inngest.api.clock = lambda: time.monotonic() + SEEN_SECONDS
        await bench.lose(job)
        await eventually(lambda: bench.sent == [job, job])


async def test_after_an_outage_of_the_database_of_any_length_jobs_go_on_within_ten_seconds(
    bench: Bench,
) -> None:
    (job,) = await bench.queue(bench.app.repository())
    misbehave(bench.server, "rest/fail?status=400&sqlstate=P0001", seconds=3600)
    async with bench.releaser(runs=False) as releaser:
        rests = []
        for _ in range(12):
            releaser._next_at = 0.0
            rests.append(await releaser.turn())
        assert max(rests) <= 10
        misbehave(bench.server, "rest/fail", seconds=0)
        releaser._next_at = 0.0
        await releaser.turn()
    assert bench.sent == [job]


async def test_where_no_row_can_be_written_that_is_one_fault(bench: Bench) -> None:
    bench.app.connection.execute(
        b"""create function refuse() returns trigger language plpgsql as $$
            begin raise exception 'not today'; end $$;
            create trigger refuse before update on background_jobs
            for each row execute function refuse()"""
    )
    jobs = await bench.queue(*bench.app.repositories(3))
    async with bench.releaser() as releaser:
        await eventually(lambda: bench.metric("job_releases_held_back") == 1)
        assert releaser.held_back_because == "background_jobs accepts no writes: not today (P0001)"
        await bench.beside(b"drop trigger refuse on background_jobs")
        await bench.beside(b"update priorityd.ordered_jobs set aside_until = now()")
        await eventually(lambda: set(bench.sent) == set(jobs))
        await eventually(lambda: bench.metric("job_releases_held_back") == 0)


async def test_a_look_for_misplaced_lanes_that_fails_holds_up_no_release(bench: Bench) -> None:
    jobs = await bench.queue(*bench.app.repositories(3))
    misbehave(bench.server, "rest/fail?status=400&sqlstate=P0001&function=check_job_lanes", seconds=3600)
    async with bench.releaser(leader=True, runs=False) as releaser:
        await releaser.turn()
    assert set(bench.sent) == set(jobs)


async def test_a_lost_job_that_is_not_sent_again_does_not_show_that_inngest_works(bench: Bench) -> None:
    (job,) = await bench.queue(bench.app.repository())
    async with bench.releaser(asks=True, runs=False) as releaser:
        await releaser.turn()
        await bench.lose(job)
        releaser.held_back_because, releaser._next_at = "Inngest answered 503", 0.0
        await releaser.turn()
        assert releaser.held_back_because == "Inngest answered 503"
