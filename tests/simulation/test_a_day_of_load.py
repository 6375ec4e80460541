"""A day of mixed load in virtual time, the load going on after it: waits, inversions and promotions."""

from __future__ import annotations

import pytest

from priorityd.core.inngest.run_priority import run_priority_expression
from priorityd.core.jobs.release_policy import promote_after_seconds
from tests.simulation.load import Load
from tests.simulation.queues import InngestQueue, OrderedQueue, Queue
from tests.simulation.run import Record, simulate

HOUR, DAY = 3600.0, 86_400.0
NINETY = Load(high_share=0.6, other_share=0.3)
PERMANENT_WORKSPACE_LOAD = Load(high_share=1.0, other_share=0.2)
"""120 %: the workspaces alone keep every worker busy."""
OVERLOAD_OF_OTHERS = Load(high_share=0.4, other_share=0.8)
"""120 % as well, but most of it is outside workspaces."""


def ordered(load: Load) -> Record:
    return simulate(load, OrderedQueue(promote_after_seconds(DAY)), DAY, 2.5 * DAY)


def test_at_90_per_cent_nothing_is_inverted_nothing_promoted_and_workspaces_hardly_wait() -> None:
    record = ordered(NINETY)
    assert (record.inversions, record.promotions, record.waiting) == (0, 0, 0)
    assert max(record.turnarounds["high"]) < 2 * HOUR
    assert max(record.turnarounds["other"]) < DAY


def test_under_a_permanent_load_of_workspaces_the_others_are_done_within_a_day() -> None:
    record = ordered(PERMANENT_WORKSPACE_LOAD)
    assert (record.inversions, record.waiting) == (0, 0)
    assert max(record.turnarounds["other"]) < DAY
    assert record.promotions > 0.9 * len(record.waits["other"])


def test_without_promotion_they_would_not_be() -> None:
    record = simulate(PERMANENT_WORKSPACE_LOAD, OrderedQueue(float("inf")), DAY, 2.5 * DAY)
    assert record.waiting > 0.5 * len(record.waits["other"])


def test_an_overload_of_the_others_does_not_reach_the_workspaces() -> None:
    record = ordered(OVERLOAD_OF_OTHERS)
    assert record.inversions == 0
    assert max(record.turnarounds["high"]) < 2 * HOUR


@pytest.mark.parametrize("expression", ["", run_priority_expression()])
def test_the_same_load_in_a_queue_that_knows_no_changes_and_only_head_starts_is_inverted(
    expression: str,
) -> None:
    queue: Queue = InngestQueue(expression)
    assert simulate(OVERLOAD_OF_OTHERS, queue, DAY / 2, DAY / 2).inversions > 100
