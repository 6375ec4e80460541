"""The short form of the matrix: every flow in every world, with few repositories."""

from __future__ import annotations

import pytest

from priorityd.daemon.sandbox.worlds import WORLDS
from tests.support.database import Server
from tests.worlds.matrix import Cell, run_world

pytestmark = [pytest.mark.worlds, pytest.mark.timeout(900)]


@pytest.mark.parametrize("world", WORLDS)
async def test_everything_is_right_or_refused_with_its_reason(server: Server, world: str) -> None:
    row = await run_world(server, world, size=20)
    wrong: dict[str, Cell] = {flow: cell for flow, cell in row.items() if cell.outcome == "wrong"}
    assert wrong == {}
    assert all(cell.why for cell in row.values() if cell.outcome == "refused")
