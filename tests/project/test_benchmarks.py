"""What the benchmarks work out of what they measure."""

from __future__ import annotations

import pytest

from tests.benchmarks.scale_table import exponent


@pytest.mark.parametrize(("power", "rows"), [(0, (10, 1000)), (1, (10, 100)), (2, (10, 100, 1000))])
def test_the_exponent_is_the_power_with_which_a_cost_grows(power: int, rows: tuple[int, ...]) -> None:
    assert exponent({number: 3.0 * number**power for number in rows}) == power


def test_there_is_no_exponent_of_one_size_or_of_what_costs_nothing() -> None:
    assert exponent({10: 1.0}) is None
    assert exponent({10: 0.0, 100: 1.0}) is None
