"""How many rows a resync asks for next."""

from __future__ import annotations

import pytest

from priorityd.core.repair.page_size import RESYNC_PAGE_SIZE, next_page_size


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [(0, 2 * RESYNC_PAGE_SIZE), (4_000, RESYNC_PAGE_SIZE), (8_000, RESYNC_PAGE_SIZE // 2)],
)
def test_pages_grow_where_little_is_wrong_and_shrink_where_much_is(changed: int, wanted: int) -> None:
    assert next_page_size(RESYNC_PAGE_SIZE, RESYNC_PAGE_SIZE, changed) == wanted


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0.0, 100_000, 100_000), (0.1, 40_000, 40_000), (1.0, 5_000, 5_000)]
)
def test_pages_settle_at_a_size_that_fits_the_share_of_wrong_rows(
    share: float, least: int, most: int
) -> None:
    page_size = RESYNC_PAGE_SIZE
    for _ in range(10):
        page_size = next_page_size(page_size, page_size, round(page_size * share))
    assert least <= page_size <= most


def test_a_page_that_the_database_made_shorter_tells_by_what_it_examined() -> None:
    assert next_page_size(RESYNC_PAGE_SIZE, examined=5_600, changed=5_600) == 5_000
