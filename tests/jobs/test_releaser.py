"""The releaser: order, outages, and what is refused."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from priorityd.core.errors import PermanentError
from priorityd.core.jobs.released import event_id
from priorityd.daemon.cli.jobs import why_none_is_released
from tests.support.daemon_process import eventually
from tests.support.event_api import Faults
from tests.support.faults import misbehave
from tests.support.releases import Bench

TO_WITHIN_SECONDS = 60
"""How exactly the database knows when a daemon last asked for jobs."""


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
            bench.end(bench.sent[-1])
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
    bench.execute(
        "update tracked_repositories set priority = 'high' where repository_id = %s", repositories[2]
    )
    bench.end(jobs[0])
    async with bench.releaser(in_flight=1, leader=True):
        await eventually(lambda: bench.sent == [jobs[0], jobs[2]])


async def test_fields_that_are_set_at_the_release_are_refused_before_anything_is_queued(bench: Bench) -> None:
    for data in ({"jobId": "x"}, {"metadata": {"promoted": True}}):
        with pytest.raises(PermanentError, match="which priorityd sets"):
            await bench.queue(bench.app.repository(), **data)
    assert bench.state("true") == 0


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
        bench.execute("drop trigger refuse on background_jobs")
        bench.execute("update priorityd.ordered_jobs set aside_until = now()")
        await eventually(lambda: set(bench.sent) == set(jobs))
        await eventually(lambda: bench.metric("job_releases_held_back") == 0)


async def test_a_look_for_misplaced_lanes_that_fails_holds_up_no_release(bench: Bench) -> None:
    jobs = await bench.queue(*bench.app.repositories(3))
    misbehave(bench.server, "rest/fail?status=400&sqlstate=P0001&function=check_job_lanes", seconds=3600)
    async with bench.releaser(leader=True, runs=False) as releaser:
        await releaser.turn()
    assert set(bench.sent) == set(jobs)
