"""The command of `tests.upgrade.under_load`, for seconds."""

from __future__ import annotations

import pytest

from tests.upgrade.under_load import under_load


@pytest.mark.release
async def test_applying_the_set_again_fails_no_call_and_leaves_every_row_right() -> None:
    found = await under_load(seconds=3, daemons=1)
    assert found["times_applied"] >= 2
    assert (found["failed_calls"], found["wrong_rows"], found["errors"]) == (0, 0, [])
