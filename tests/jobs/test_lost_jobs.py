"""What the releaser does about jobs that were sent and never reported on."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from tests.support.daemon_process import eventually
from tests.support.event_api import SEEN_SECONDS
from tests.support.releases import Bench
from tests.support.situations import named


async def test_jobs_that_nobody_reports_on_hold_nobody_up_and_fail_in_the_end(bench: Bench) -> None:
    """Sent again they start nothing: Inngest knows their events for a day."""
    lost = await bench.queue(*named(bench.app, "acme/web", "acme/api", "acme/docs"))
    with capture_logs() as logs:
        async with bench.releaser(in_flight=3, most_leases=2) as releaser:
            await eventually(lambda: bench.state("sent_at is not null") == 3)
            others = await bench.queue(*bench.app.repositories(3))
            bench.lose(*lost)
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
                bench.lose(again)
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
        bench.lose(job)
        await eventually(lambda: bench.status(job) == status.lower())
    assert len(bench.inngest.api.accepted) == 1


async def test_a_lost_job_that_runs_is_in_flight_again(bench: Bench) -> None:
    (job,) = await bench.queue(bench.app.repository())
    async with bench.releaser(in_flight=1, asks=True):
        await eventually(lambda: bench.state("sent_at is not null") == 1)
        bench.lose(job)
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
            bench.lose(job)
        await eventually(lambda: bench.state("sent_at is not null and losses = 2") == 1)
    bench.inngest.api.end_runs("Completed")
    bench.lose(job)
    async with bench.releaser(asks=True, most_leases=5):
        await eventually(lambda: bench.status(job) == "completed")


async def test_a_job_whose_event_inngest_has_forgotten_runs_again(bench: Bench) -> None:
    (job,) = await bench.queue(bench.app.repository())
    async with bench.releaser():
        await eventually(lambda: bench.state("sent_at is not null") == 1)
        bench.inngest.api.clock = lambda: time.monotonic() + SEEN_SECONDS
        bench.lose(job)
        await eventually(lambda: bench.sent == [job, job])


async def test_a_lost_job_that_is_not_sent_again_does_not_show_that_inngest_works(bench: Bench) -> None:
    (job,) = await bench.queue(bench.app.repository())
    async with bench.releaser(asks=True, runs=False) as releaser:
        await releaser.turn()
        bench.lose(job)
        releaser.held_back_because, releaser._next_at = "Inngest answered 503", 0.0
        await releaser.turn()
        assert releaser.held_back_because == "Inngest answered 503"
