"""The short form of the matrix: every flow, with few repositories, in the worlds that differ most."""

from __future__ import annotations

import pytest

from priorityd.daemon.sandbox.worlds import WORLDS
from tests.support.database import Server
from tests.worlds.matrix import Cell, run_world

pytestmark = [pytest.mark.worlds, pytest.mark.timeout(900)]


SHORT = (
    "strict",
    "triggers",
    "loose",
    "soft",
    "partitioned",
    "owner",
    "words_label",
    "words_bigint",
    "publication_filter",
    "publication_owner",
    "policies_hidden",
)


def test_the_short_form_knows_the_worlds() -> None:
    assert set(SHORT) <= set(WORLDS)


@pytest.mark.parametrize("world", SHORT)
async def test_everything_is_right_or_refused_with_its_reason(server: Server, world: str) -> None:
    row = await run_world(server, world, size=20)
    wrong: dict[str, Cell] = {flow: cell for flow, cell in row.items() if cell.outcome == "wrong"}
    assert wrong == {}
    assert all(cell.why for cell in row.values() if cell.outcome == "refused")
