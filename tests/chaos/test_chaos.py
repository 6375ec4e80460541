"""The short form of a chaos run: every kind of fault once, each for a few seconds."""

from __future__ import annotations

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.leaders import TAKEOVER_SECONDS
from tests.chaos.mischief import MISCHIEF
from tests.chaos.run import Plan, run_chaos
from tests.chaos.summary import RECOVERY_LIMIT_SECONDS

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.chaos
async def test_whatever_breaks_every_priority_is_right_within_half_a_minute() -> None:
    plan = Plan(seed=1, every_kind=True, daemons=2, usual_seconds=2.0, longest_seconds=6.0, talk=True)
    summary = await run_chaos(plan)
    print(summary.as_json())
    assert set(summary.faults) == set(FAULTS)
    assert summary.operations > 1000
    assert summary.unharmed_changes > 0
    assert summary.audit_entries > 100
    assert summary.restarts >= 1
    assert 0 < summary.slowest_takeover_seconds <= TAKEOVER_SECONDS
    assert summary.slowest_job_seconds > 0
    assert summary.wrong_rows == 0
    assert summary.broken_audit == 0
    assert summary.troubles == []
    assert summary.live_at_end
    assert summary.slowest_recovery_seconds <= RECOVERY_LIMIT_SECONDS


@pytest.mark.release
@pytest.mark.parametrize("world", MISCHIEF)
async def test_what_applications_do_to_their_tables_makes_nothing_wrong_but_what_they_refuse(
    world: str,
) -> None:
    kinds = ["backends_terminated", "daemon_killed", "flapping", "realtime_lose", "rest_503", "row_poisoned"]
    plan = Plan(
        seed=3, every_kind=True, daemons=2, kinds=kinds, usual_seconds=3.0, longest_seconds=6.0, world=world
    )
    summary = await run_chaos(plan)
    print(summary.as_json())
    assert summary.audit_entries > 100
    assert not summary.failed, summary


@pytest.mark.release
async def test_three_daemons_neither_deadlock_nor_write_an_audit_entry_twice() -> None:
    # Nothing is broken but by load: one repository without rest, and thousands at once.
    plan = Plan(seed=2, seconds=20, daemons=3, kinds=["flapping", "burst"], longest_seconds=8.0, talk=True)
    summary = await run_chaos(plan)
    print(summary.as_json())
    assert summary.audit_entries > 1000
    assert summary.deadlocks == 0
    assert not summary.failed, summary
