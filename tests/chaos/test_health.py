"""The short form of `python -m tests.chaos.health`: a fault is reported soon, and so is its end."""

from __future__ import annotations

import pytest

from tests.chaos.health import as_table, run

pytestmark = [pytest.mark.release, pytest.mark.timeout(900)]


async def test_a_fault_is_told_within_half_a_minute_and_so_is_its_end() -> None:
    rows = await run(["database frozen", "Realtime down", "rows parked"], hold_seconds=45)
    print(as_table(rows))
    # How soon all is well again is up to PostgREST, too: it waits for up to 32 s before it tries to connect.
    assert [row.fault for row in rows if row.is_late or row.recovery is None] == []
    frozen = rows[0]
    assert frozen.not_ready is not None
    assert frozen.not_ready[0] <= 30
