"""`python -m tests.support.ordered_worker EVENTS_URL DATABASE_URL SECONDS`: does ordered jobs as they arrive.

It is not Inngest, but does what a function for ordered jobs must do: it takes the next event that the
stand-in for the event API has accepted, reports in `background_jobs` that the job has started, works for
SECONDS, and reports that it is done. Several of them share the events, like concurrent runs. It ends with its
stdin.
"""

from __future__ import annotations

import select
import sys
import time
from typing import Any

import httpx
import psycopg

from tests.support.patience import PATIENCE_SECONDS

CLAIM = """
update background_jobs set status = 'processing', started_at = clock_timestamp()
where id = %s and status = 'queued' returning id
"""
DONE = "update background_jobs set status = 'completed', completed_at = clock_timestamp() where id = %s"


def told_to_end() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main() -> None:
    """Work until stdin ends."""
    url, database_url, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    seen = 0
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_SECONDS) as http,
        psycopg.connect(database_url, autocommit=True) as database,
    ):
        while not told_to_end():
            accepted: list[dict[str, Any]] = http.get("/stand-in/accepted").json()["accepted"]
            if seen == len(accepted):
                time.sleep(0.01)  # between looks
                continue
            job_id = accepted[seen]["data"]["jobId"]
            seen += 1
            if database.execute(CLAIM, (job_id,)).fetchone() is not None:
                time.sleep(seconds)  # the work
                database.execute(DONE, (job_id,))


if __name__ == "__main__":
    main()
