"""What a poll of the job table reads, however many jobs are history."""

from __future__ import annotations

import pytest

from tests.support.job_table import Jobs, Reader
from tests.support.world import World


@pytest.mark.million
def test_a_million_jobs_of_history_cost_a_poll_nothing(world: World) -> None:
    """In pages read: what a poll reads is what ended and what waits, not what the table holds."""
    world.execute("set synchronous_commit = off; set work_mem = '64MB'")
    world.execute(
        """insert into background_jobs (status, created_at, started_at, completed_at)
           select 'completed', t, t + interval '2 s', t + interval '5 s'
           from (
               select now() - interval '1 h' - n * interval '1 s' from generate_series(1, 1000000) n
           ) x (t)"""
    )
    world.execute("vacuum analyze background_jobs")

    def pages_read(reader: Reader) -> int:
        answer = world.value(
            f"""explain (analyze, buffers, format json)
                select poll_background_jobs(
                    '{reader.daemon_id}', {reader.counted_page or "null"}, 1000, 0.0)"""
        )
        return answer[0]["Plan"]["Shared Hit Blocks"] + answer[0]["Plan"]["Shared Read Blocks"]

    warm = Reader(world).poll()  # the first call of a session reads the catalog
    pages_read(Reader(world))
    assert pages_read(Reader(world)) < 200
    # Five seconds of 100 jobs a second.
    world.execute(
        """insert into background_jobs (status, created_at, started_at, completed_at, payload)
           select 'completed', now() - interval '9 s', now() - n * interval '5 ms', now(), '{"priority": 100}'
           from generate_series(1, 500) n"""
    )
    Reader(world).ask()
    busy = pages_read(Reader(world))
    assert busy < 500 * 15, "a few look-ups for each job"
    assert world.value(
        "select seq_tup_read < 1100000 from pg_stat_user_tables where relname = 'background_jobs'"
    )
    assert warm.jobs == []


def test_each_question_is_answered_from_its_index(world: World, jobs: Jobs) -> None:
    jobs.add("high")
    jobs.end()

    def scans() -> tuple[int, int]:
        row = world.execute(
            "select seq_tup_read, idx_scan from pg_stat_xact_user_tables where relname = 'background_jobs'"
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    with world.connection.transaction():
        before = scans()
        Reader(world).ask()
        assert scans()[0] == before[0]
        assert scans()[1] >= before[1] + 3, "the page, its jobs, the queue"
