"""How many rows a call asks for."""

from __future__ import annotations

from priorityd.core.call_size import CallSize


def settle(size: CallSize, seconds_a_row: float, limit_seconds: float) -> list[int]:
    """The sizes of calls on a database that takes so long for each row, and gives up after the limit."""
    asked = []
    for _ in range(12):
        rows = size.rows
        asked.append(rows)
        if rows * seconds_a_row > limit_seconds:
            size.timed_out(rows)
        else:
            size.answered(rows, rows * seconds_a_row)
    return asked


def test_it_grows_to_the_most_where_rows_are_cheap() -> None:
    assert settle(CallSize(100, 500, 1.0), 0.0005, 12.0)[:4] == [100, 400, 500, 500]


def test_it_settles_at_what_takes_as_long_as_is_wished() -> None:
    assert settle(CallSize(100, 500, 1.0), 0.04, 12.0)[-1] in (25, 26)


def test_what_times_out_is_halved_down_to_one_and_grows_again() -> None:
    size = CallSize(100, 500, 1.0)
    asked = settle(size, 20.0, 12.0)
    assert asked[:8] == [100, 50, 25, 12, 6, 3, 1, 1]
    assert not size.timed_out(1)
    assert settle(size, 0.001, 12.0)[-1] == 500


def test_a_small_call_that_was_quick_proves_nothing() -> None:
    size = CallSize(100, 500, 1.0)
    size.answered(3, 0.001)
    assert size.rows == 100
