"""Says how many rows are wrong, judging by the application's tables alone, and how long they stay so."""

from __future__ import annotations

import time

import anyio

from tests.acceptance.application import ALL_WRONG
from tests.chaos.database import insist

_POLL_SECONDS = 0.05

_LOST_PINS = """
select count(*) from chaos_manual c join tracked_repositories t on t.id = c.tracked_id
where t.manual_priority::text is distinct from c.priority
"""


async def wrong_rows(url: str) -> int:
    """Tracked rows whose priority disagrees with membership, or whose manual priority was lost."""
    ((wrong,),) = await insist(url, ALL_WRONG)
    ((lost,),) = await insist(url, _LOST_PINS)
    return int(wrong + lost)


async def seconds_until_right(url: str, limit_seconds: float) -> float | None:
    """How long it takes until no row is wrong; None if it takes longer. Nobody may be changing rows."""
    started_at = time.monotonic()
    while await wrong_rows(url):
        if time.monotonic() - started_at > limit_seconds:
            return None
        await anyio.sleep(_POLL_SECONDS)
    return time.monotonic() - started_at
